"""Letta's server: ``<memory_blocks>`` in the system prompt, a block for each label.

As of 0.16.8, its last version in Python (``letta/schemas/memory.py``), with line numbers or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mindscore.recognisers import Block, Entry, Unread, hookimpl

_NAME = "<memory_blocks>\n"
_OPEN = f"{_NAME}The following memory blocks are currently engaged in your core memory unit:\n\n"
_CLOSE = "\n</memory_blocks>"
_BLOCK = re.compile(
    r"<(?P<label>[^<>\n]+)>\n<description>\n.*?\n</description>\n<metadata>(?:\n- read_only=true)?"
    r"\n- chars_current=(?P<length>\d{1,9})\n- chars_limit=\d+\n</metadata>\n"
    r"(?P<numbered><warning>\n[^\n]*\n</warning>\n)?<value>\n",
    re.DOTALL,
)
_FILES = "<projection>$MEMORY_DIR/"


class Letta:
    """The recogniser of memory blocks; keys are ``letta:LABEL``."""

    @hookimpl
    def find_memories(self, role: str, text: str) -> Iterator[Block | Unread]:
        """Find the section of a system prompt, whose blocks state their own lengths."""
        if role != "system":
            return
        start = text.find(_NAME)
        if start >= 0:
            yield _section(text, start) or Unread(
                start, len(text), "the memory blocks are not as their lengths say"
            )
        if (files := text.find(_FILES)) >= 0:
            yield Unread(files, len(text), "memories kept in git cannot be told apart yet")


def _section(text: str, start: int) -> Block | None:
    entries: list[Entry] = []
    at, numbered = start + len(_OPEN), False
    if not text.startswith(_OPEN, start):
        return None
    while not entries or not text.startswith(_CLOSE, at):
        if entries and not text.startswith("\n", at):
            return None
        at += 1 if entries else 0
        head = _BLOCK.match(text, at)
        if head is None:
            return None
        numbered = head["numbered"] is not None
        length = int(head["length"])
        end = _numbered(text, head.end(), length) if numbered else head.end() + length + 1
        closing = f"</value>\n</{head['label']}>\n"
        if end is None or not text.startswith(f"\n{closing}", end - 1):
            return None
        end += len(closing)
        entries.append(Entry(f"letta:{head['label']}", text[at:end]))
        at = end
    # Only what it prints with line numbers, it prints of no blocks too.
    nothing = _OPEN + _CLOSE if numbered else ""

    def render(skipped: frozenset[str]) -> str:
        left = "\n".join(entry.text for entry in entries if entry.key not in skipped)
        return _OPEN + left + _CLOSE if left else nothing

    return Block(start, at + len(_CLOSE), tuple(entries), render)


def _numbered(text: str, at: int, length: int) -> int | None:
    """Return the end of lines ``1→ …``, ``2→ …`` of ``length`` characters; ``None`` if not so."""
    said, number = -1 if length else 0, 0
    while said < length:
        number += 1
        mark, end = f"{number}→ ", text.find("\n", at)
        if end < 0 or not text.startswith(mark, at):
            return None
        said += 1 + end - at - len(mark)
        at = end + 1
    return at if said == length else None
