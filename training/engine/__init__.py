"""What every training program runs on: the loop, recipes, distribution, checkpoints, optimizers."""
