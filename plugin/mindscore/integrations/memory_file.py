"""A memory file's sidecar: scores beside ``MEMORY.md`` and the like, which stays as it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock
from msgspec import Struct

from mindhooks import in_thread
from mindscore._util.files import write_whole
from mindscore.flows.notes import Note, NoteError
from mindscore.readers.memories import read_memories
from mindscore.readers.memory_files import read_text

SUFFIX = ".mindscore.json"
"""Put to the name of a memory file for that of its sidecar."""


class Sidecar(Struct, frozen=True):
    """The notes beside a memory file, by the keys of what it holds."""

    memories: dict[str, dict[str, Any]]


class MemoryFileNotes:
    """Notes scores in ``FILE.mindscore.json``, of the memories that ``FILE`` holds now.

    A memory is told by its text; the whole file is one, too, under its name. Notes on what the file
    holds no more go with the next one.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._files = [Path(it) for it in files]

    async def write(self, note: Note) -> None:
        """Write ``note`` to the sidecar of each file that holds its memory.

        Raises:
            NoteError: no file holds it.
            TranscriptError: a file cannot be read.
            OSError: a sidecar cannot be written.
        """
        written = [await in_thread(_write, file, note) for file in self._files]
        if not any(written):
            raise NoteError(f"no memory file of write-back's holds {note.key!r}")

    async def aclose(self) -> None:
        """Do nothing: no file stays open."""


def _write(file: Path, note: Note) -> bool:
    """Write ``note`` to the sidecar of ``file``; return false if that does not hold its memory."""
    memories = {file.name: read_text(file), **read_memories(file)}
    keys = [key for key, text in memories.items() if note.is_of(text)]
    if not keys:
        return False
    sidecar = file.with_name(file.name + SUFFIX)
    with FileLock(f"{sidecar}.lock"):
        notes = _read(sidecar) | dict.fromkeys(keys, note.fields)
        left = {key: notes[key] for key in memories if key in notes}
        content = msgspec.json.format(msgspec.json.encode(Sidecar(left)), indent=2)
        write_whole(sidecar, content + b"\n")
    return True


def _read(sidecar: Path) -> dict[str, dict[str, Any]]:
    """Return the notes of a sidecar, none where there is none or it is damaged."""
    try:
        return msgspec.json.decode(sidecar.read_bytes(), type=Sidecar).memories
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
