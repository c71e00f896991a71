"""Readers, transforms and superpixels for training."""
