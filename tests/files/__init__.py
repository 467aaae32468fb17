"""Tests of aotpack.files."""
