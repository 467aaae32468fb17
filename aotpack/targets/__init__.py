"""What to compile for."""
