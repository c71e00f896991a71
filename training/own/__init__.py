"""Training on data of your own: what `cast-train` does around the programs."""
