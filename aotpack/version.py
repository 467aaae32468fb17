"""The release of aotpack."""

__all__ = ["VERSION"]

#: PEP 440. The build of the distribution reads it from here.
VERSION = "0.1.0"
