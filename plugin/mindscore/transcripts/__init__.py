"""Conversations in files."""

from mindscore.transcripts.native import Transcript, read_transcript

__all__ = ["Transcript", "read_transcript"]
