"""CAST and its baselines in PyTorch."""
