"""What a package says of itself, how it is read from hostile bytes, and what its ONNX files may hold."""
