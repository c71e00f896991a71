"""A trained model as static operators."""
