"""What the command line writes as JSON, and the schemas of it."""
