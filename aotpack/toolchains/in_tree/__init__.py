"""EPs inside builds of ONNX Runtime: known, and not compiled for."""
