"""The live web view: one page, one websocket, one model run for all viewers. Needs the extra `serve`."""
