"""Weights by name and by hf:// address: what a reference stands for, and how its file gets here. No torch."""
