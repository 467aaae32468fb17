"""OpenVINO's EP: Intel's CPUs, GPUs and NPUs."""
