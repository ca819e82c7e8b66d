"""A file of memories as it would be without those that are proposed to go, as a unified diff."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mindscore._util.errors import UsageError
from mindscore._util.files import STANDARD_INPUT
from mindscore._util.text import shortened
from mindscore.measure.memories import text_hash
from mindscore.measure.verdicts import Advice
from mindscore.readers.memory_files import read_text, without_memories

BULLETS = ("", "- ", "* ", "+ ")
"""What a host may print before a memory, and count as its text."""


@dataclass(frozen=True, slots=True)
class MemoryDiff:
    """The change to one file: a unified diff, empty if there is none, and whose memories go.

    ``remarks`` are lines on memories that stay though their keys are proposed.
    """

    text: str
    keys: tuple[str, ...]
    remarks: tuple[str, ...]


def memory_diff(file: Path, removable: Sequence[Advice]) -> MemoryDiff:
    """Return what would change in ``file``; it is only read.

    A memory goes if its text is the one that was judged. One of the same key and another text
    stays, unless the store does not know which text was judged.

    Raises:
        UsageError: the file is standard input.
        TranscriptError: it cannot be read, or is no file of memories.
    """
    if file == STANDARD_INPUT:
        raise UsageError("--diff: name a file; standard input is none that could be changed")
    by_hash = {it.evidence.version.text_hash: it.key for it in removable}
    by_key = {it.key: it.evidence.version.text_hash for it in removable}
    gone, edited = dict[str, None](), dict[str, None]()

    def is_gone(key: str, text: str) -> bool:
        for bullet in BULLETS:
            if judged := by_hash.get(text_hash(bullet + text)):
                gone[judged] = None
                return True
        if by_key.get(key) == "":
            gone[key] = None
            return True
        if key in by_key:
            edited[key] = None
        return False

    before = read_text(file)
    after = without_memories(file, before, is_gone)
    diff = "".join(_unified(file, before, after))
    remarks = (f"{shortened(key, 100)} stays: its text is not the one judged" for key in edited)
    return MemoryDiff(diff, tuple(gone), tuple(remarks))


def _unified(file: Path, before: str, after: str) -> Iterator[str]:
    old, new = (it.splitlines(keepends=True) for it in (before, after))
    # As git prints them, so that ``patch -p1`` and ``git apply`` take it.
    name = str(file).lstrip("/")
    for line in difflib.unified_diff(old, new, f"a/{name}", f"b/{name}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
