"""Random views of images, on bytes: what is drawn, and how it is computed."""
