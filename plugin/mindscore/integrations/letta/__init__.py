"""Letta: its memory blocks in prompts, its agent files, and scores in its blocks' metadata."""

from mindscore.integrations.letta.formats import Letta, LettaReader

__all__ = ["Letta", "LettaReader"]
