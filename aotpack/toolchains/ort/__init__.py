"""ONNX Runtime's own CPU EP."""
