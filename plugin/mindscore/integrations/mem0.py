"""mem0: scores in the metadata of its memories.

As of mem0ai 2.2; keys are mem0's ids, as ``{it["id"]: it["memory"]}`` of a search gives them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from mindhooks import in_thread
from mindscore.config.settings import AbsolutePath
from mindscore.flows.notes import Note, NoteError


class Mem0Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[plugins.settings.write-back.mem0]``: the JSON that ``Memory.from_config`` takes."""

    config: AbsolutePath


class Mem0Notes:
    """Notes scores in mem0's metadata; a host that has a ``Memory`` gives it as ``memory``.

    ``memory.update`` embeds the text once more, which is the same, and sets ``updated_at``.
    """

    def __init__(self, options: Mem0Options | None = None, memory: Any = None) -> None:
        self._options = options
        self._memory = memory
        self._turn = asyncio.Lock()

    async def write(self, note: Note) -> None:
        """Write ``note`` to the memory whose id is its key.

        Raises:
            NoteError: mem0 is not installed or configured wrongly, or has no such memory.
        """
        # Its stores on disk are for one thread at a time.
        async with self._turn:
            await in_thread(self._write, note)

    async def aclose(self) -> None:
        """Close the ``Memory`` that was opened here."""
        if self._options is not None and self._memory is not None:
            memory, self._memory = self._memory, None
            await in_thread(memory.close)
            # It leaves its vector store open, which locks the folder of one on disk.
            client: Any = getattr(memory.vector_store, "client", None)
            if hasattr(client, "close"):
                await in_thread(client.close)

    def _write(self, note: Note) -> None:
        if self._memory is None and self._options is not None:
            self._memory = _open(Path(self._options.config))
        found = self._memory.get(note.key)
        if found is None:
            raise NoteError("mem0 has no memory of that id: are the keys mem0's ids?")
        if not note.is_of(found["memory"]):
            raise NoteError("mem0 has another text of that memory by now")
        self._memory.update(note.key, metadata=note.fields)


def _open(file: Path) -> Any:
    try:
        from mem0 import Memory
    except ImportError as error:
        raise NoteError(f"{error}; install it with: pip install mem0ai") from error
    try:
        config = msgspec.json.decode(file.read_bytes())
    except (OSError, ValueError) as error:
        raise NoteError(f"{file}: {error}") from error
    return Memory.from_config(config)
