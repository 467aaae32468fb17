"""TensorRT for RTX's EP: NVIDIA's GPUs."""
