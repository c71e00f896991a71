"""What runs the network: ONNX Runtime, OpenVINO, TensorRT or torch, behind one interface."""
