"""Checkpoint files: reading without running code, official layouts, and models from both."""
