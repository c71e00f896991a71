"""A segmenter from a person's images and masks."""
