"""What runs the network: ONNX Runtime, OpenVINO, TensorRT or torch."""

from cast_sdk.runtime.backends.base import Backend, default_threads

__all__ = ["Backend", "default_threads"]
