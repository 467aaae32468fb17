"""WebGPU's EP: GPUs of any vendor."""
