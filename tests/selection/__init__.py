"""Tests of aotpack.selection.select."""
