"""Transcripts of other tools are read as every other file is."""

from ..readers.conftest import read, refused

__all__ = ["read", "refused"]
