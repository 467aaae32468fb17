"""Tests of aotpack.targets."""
