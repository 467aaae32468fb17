"""Where the bytes of a package come from, and the local cache that they go to."""
