"""Engines that run an exported graph."""
