"""Segments that stay: track ids, steady membership and colours from frame to frame."""
