"""A memory file's sidecar: scores beside ``MEMORY.md`` and the like, which stays as it is."""

from __future__ import annotations

import asyncio
import hashlib
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


MAX_BYTES = 4 * 2**20
"""Size of a memory file: it is read anew for each note, as it may have changed."""


class Sidecar(Struct, frozen=True):
    """The notes beside a memory file, and hashes of the texts they are of, by keys."""

    memories: dict[str, dict[str, Any]] = {}
    texts: dict[str, str] = {}


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
            NoteError: no file holds it, or one is too long.
            TranscriptError: a file cannot be read; the others have their notes.
            OSError: a sidecar cannot be written.
        """
        tries = (in_thread(_write, file, note) for file in self._files)
        written = await asyncio.gather(*tries, return_exceptions=True)
        for it in written:
            if isinstance(it, BaseException):
                raise it
        if not any(written):
            raise NoteError(f"no memory file of write-back's holds {note.key!r}")

    async def aclose(self) -> None:
        """Do nothing: no file stays open."""


def _write(file: Path, note: Note) -> bool:
    """Write ``note`` to the sidecar of ``file``; return false if that does not hold its memory."""
    if file.exists() and file.stat().st_size > MAX_BYTES:
        raise NoteError(f"{file}: is over {MAX_BYTES} bytes, too long for notes on its memories")
    memories = {file.name: read_text(file), **read_memories(file)}
    keys = [key for key, text in memories.items() if note.is_of(text)]
    if not keys:
        return False
    hashes = {key: _hashed(text) for key, text in memories.items()}
    sidecar = file.with_name(file.name + SUFFIX)
    with FileLock(f"{sidecar}.lock"):
        found = _read(sidecar)
        same = [it for it in found.memories if found.texts.get(it, "") == hashes.get(it)]
        notes = {it: found.memories[it] for it in same}
        notes |= dict.fromkeys(keys, note.fields)
        left = [it for it in memories if it in notes]
        kept = Sidecar({it: notes[it] for it in left}, {it: hashes[it] for it in left})
        content = msgspec.json.format(msgspec.json.encode(kept), indent=2)
        write_whole(sidecar, content + b"\n")
    return True


def _hashed(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]


def _read(sidecar: Path) -> Sidecar:
    """Return the notes of a sidecar, none where there is none or it is damaged."""
    try:
        return msgspec.json.decode(sidecar.read_bytes(), type=Sidecar)
    except (FileNotFoundError, msgspec.DecodeError):
        return Sidecar()
