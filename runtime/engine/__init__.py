"""TensorRT: engines built, cached, described, loaded and run."""
