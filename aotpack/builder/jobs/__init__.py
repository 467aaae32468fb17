"""Jobs done: in worker processes on this machine, or by an executor on others. Knows nothing of packages."""
