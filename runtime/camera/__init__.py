"""The camera program: its sinks, and the live page with one websocket and one model run for all viewers."""
