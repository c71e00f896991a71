"""Programs that train and evaluate every published model."""
