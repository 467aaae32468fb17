"""Tests of aotpack.machine.profile."""
