"""Tests of aotpack.documents.verbs."""
