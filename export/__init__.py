"""From a checkpoint to ONNX and TensorRT."""
