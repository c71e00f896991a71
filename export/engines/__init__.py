"""Engines and ahead-of-time programs from a lowered model."""
