"""A classifier from a person's labelled images."""
