"""What a computer has, as values: profiles, what its system says, the release of ONNX Runtime."""
