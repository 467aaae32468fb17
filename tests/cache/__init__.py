"""Tests of aotpack.cache."""
