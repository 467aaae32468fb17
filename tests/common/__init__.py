"""Tests of aotpack.common."""
