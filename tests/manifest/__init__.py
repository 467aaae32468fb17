"""Tests of aotpack.manifest.values."""
