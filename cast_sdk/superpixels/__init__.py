"""SEEDS superpixels behind one interface."""
