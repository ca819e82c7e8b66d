"""Scores in the metadata of Letta's memory blocks.

As of letta-client 1.12, against a server of 0.16; keys are ``letta:LABEL``, as its blocks are
recognised.
"""

from __future__ import annotations

import os
import re
from typing import Any

from msgspec import Struct

from mindscore.config.settings import Name
from mindscore.flows.notes import Note, NoteError

PREFIX = "letta:"


class LettaOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[plugins.settings.write-back.letta]``.

    ``agent``: the id of the agent whose blocks get the scores. ``api_key_env`` names the
    environment variable with the server's key, which a server of one's own need not have.
    """

    agent: Name
    base_url: Name = "http://127.0.0.1:8283"
    api_key_env: Name = "LETTA_API_KEY"


class LettaNotes:
    """Notes scores in the metadata of an agent's memory blocks."""

    def __init__(self, options: LettaOptions) -> None:
        self._options = options
        self._client: Any = None

    async def write(self, note: Note) -> None:
        """Write ``note`` to the agent's block that its key names.

        Raises:
            NoteError: letta-client is not installed, or the key names no block.
        """
        if not note.key.startswith(PREFIX):
            raise NoteError(f"{note.key!r} names no block of Letta's: {PREFIX}LABEL would")
        if self._client is None:
            self._client = _connect(self._options)
        label, agent = note.key.removeprefix(PREFIX), self._options.agent
        blocks = self._client.agents.blocks
        block = await blocks.retrieve(label, agent_id=agent)
        if not _is_of(note, block.value):
            raise NoteError(f"Letta has another text in the block {label!r} by now")
        metadata = {**(block.metadata or {}), **note.fields}
        await blocks.update(label, agent_id=agent, metadata=metadata)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()


def _is_of(note: Note, value: str) -> bool:
    """Return whether a block's value is the one that the note is of.

    A prompt states its length, and has each line of it, some after its number.
    """
    stated = re.search(r"^- chars_current=(\d+)$", note.text, re.MULTILINE)
    if stated is None:
        return note.is_of(value)
    lines = (it.strip() for it in value.splitlines())
    return int(stated[1]) == len(value) and all(it in note.text for it in lines)


def _connect(options: LettaOptions) -> Any:
    try:
        from letta_client import AsyncLetta
    except ImportError as error:
        raise NoteError(f"{error}; install it with: pip install letta-client") from error
    # Without a key of its own it would take another from the environment, and insist on one.
    key = os.environ.get(options.api_key_env) or "none"
    return AsyncLetta(base_url=options.base_url, api_key=key)
