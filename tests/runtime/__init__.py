"""Tests of aotpack.runtime."""
