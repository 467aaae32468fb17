"""What a new user can run first, and the real models that it, the tests and the benchmarks run on."""
