"""From a frame to its hierarchy."""
