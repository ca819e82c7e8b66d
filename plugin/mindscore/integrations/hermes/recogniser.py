"""hermes-agent: MEMORY.md and USER.md in the system prompt, and what a provider recalled.

As of 0.19.0 (``tools/memory_tool.py``, ``agent/system_prompt.py``): a header between rules states
the length of all entries, and its share of the limit; blank lines join the parts of the system
prompt, the blocks among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from mindscore._util.errors import TranscriptError
from mindscore.recognisers.finder import Block, Entry, Unread, hashed, hookimpl

RULE = "═" * 46
DELIMITER = "\n§\n"
JOINER = "\n\n"
TITLES = {
    "memory": "MEMORY (your personal notes)",
    "user": "USER PROFILE (who the user is)",
}
_NUMBER = r"\d{1,3}(?:,\d{3})*"
_HEADER = re.compile(
    rf"^{RULE}\n({'|'.join(map(re.escape, TITLES.values()))}) "
    rf"\[(\d+)% — ({_NUMBER})/({_NUMBER}) chars\]\n{RULE}\n",
    re.MULTILINE,
)
_AMBIGUOUS = "\n§\n§\n"
_KINDS = {title: kind for kind, title in TITLES.items()}

_OPEN = "<memory-context>\n"
_CLOSE = "\n</memory-context>"
_NOTE = re.compile(r"\[System note: The following is recalled memory context, [^\]]*\]\n\n")
_LIST = re.compile(r"(?:#+ [^\n]+\n\n?)?- [^\n]*(?:\n- [^\n]*)*")


class Hermes:
    """The recogniser; keys are ``hermes:memory:HASH``, ``hermes:user:…``, ``hermes:recall:…``."""

    @hookimpl
    def find_memories(self, role: str, text: str) -> Iterator[Block | Unread]:
        """Find blocks in a system prompt, fences in a user message."""
        if role == "system":
            yield from _blocks(text)
        elif role == "user":
            yield from _fences(text)


@dataclass(frozen=True, slots=True)
class _File:
    """The block of one file, as it stands in the prompt."""

    kind: str
    texts: tuple[str, ...]
    limit: int
    start: int
    end: int

    def key(self, text: str) -> str:
        return f"hermes:{self.kind}:{hashed(text)}"

    def entries(self) -> dict[str, Entry]:
        """Return the entries by key; those that Hermes blocked all have the same text."""
        return {self.key(it): Entry(self.key(it), it) for it in self.texts}

    def without(self, skipped: frozenset[str]) -> str:
        """Return what Hermes prints of the rest; empty if nothing is left."""
        left = [it for it in self.texts if self.key(it) not in skipped]
        if not left:
            return ""
        content = DELIMITER.join(left)
        share = min(100, int((len(content) / self.limit) * 100)) if self.limit > 0 else 0
        header = f"{TITLES[self.kind]} [{share}% — {len(content):,}/{self.limit:,} chars]"
        return f"{RULE}\n{header}\n{RULE}\n{content}"


def _blocks(text: str) -> Iterator[Block | Unread]:
    looked_at = list(_found(text))
    found = [it for it in looked_at if isinstance(it, _File)]
    yield from (it for it in looked_at if isinstance(it, Unread))
    # Blocks that stand side by side share what joins them.
    groups = groupby(enumerate(found), key=lambda it: _first_of_row(found, it[0]))
    for _, group in groups:
        row = [file for _, file in group]
        yield _block(row, text, _doubt(row, found, text))


def _found(text: str) -> Iterator[_File | Unread]:
    at = 0
    while header := _HEADER.search(text, at):
        at = header.end()
        content = text[at : at + _number(header[3])]
        kind, end = _KINDS[header[1]], at + len(content)
        texts = tuple(content.split(DELIMITER))
        file = _File(kind, texts, _number(header[4]), header.start(), end)
        # What follows is another part of the prompt, or nothing; an entry may quote a header.
        if (end == len(text) or text.startswith(JOINER, end)) and (
            file.without(frozenset()) == text[header.start() : end]
        ):
            yield file
            at = end
        else:
            yield Unread(header.start(), end, "the block is not as its header says")


def _first_of_row(found: list[_File], at: int) -> int:
    """Return the index of the first block in the row of adjacent ones that ``at`` is in."""
    while at and found[at - 1].end + len(JOINER) == found[at].start:
        at -= 1
    return at


def _doubt(row: list[_File], found: list[_File], text: str) -> str | None:
    """Return why the entries cannot be told for sure; ``None`` if they can."""
    kinds = [file.kind for file in found]
    for file in row:
        if _AMBIGUOUS in text[file.start : file.end]:
            return "an entry begins or ends with §, so that there are two ways to read the block"
        if kinds.count(file.kind) > 1:
            return "the prompt has more than one such block, of which some other file quotes one"
    return None


def _block(row: list[_File], text: str, doubt: str | None) -> Block:
    # Without any entry the blocks go, and with them what joined them to their neighbour.
    start, end = row[0].start, row[-1].end
    before = end == len(text) and text.endswith(JOINER, 0, start)
    first = start - len(JOINER) if before else start
    last = end if end == len(text) else end + len(JOINER)
    entries: dict[str, Entry] = {}
    for file in row:
        entries |= file.entries()

    def render(skipped: frozenset[str]) -> str:
        if doubt is not None:
            raise TranscriptError(doubt)
        left = JOINER.join(filter(None, (file.without(skipped) for file in row)))
        return text[first:start] + left + text[end:last] if left else ""

    return Block(first, last, tuple(entries.values()), render)


def _number(printed: str) -> int:
    return int(printed.replace(",", ""))


def _fences(text: str) -> Iterator[Block]:
    """Yield what a memory provider recalled: appended to the message, its entries nameless."""
    at = text.find(_OPEN)
    while at >= 0:
        first = at + len(_OPEN)
        close = text.find(_CLOSE, first)
        note = _NOTE.match(text, first, close) if close >= 0 else None
        end = close + len(_CLOSE)
        # A message may quote a fence.
        if note is not None and (end == len(text) or text.startswith(JOINER, end)):
            start = at - len(JOINER) if text.endswith(JOINER, 0, at) else at
            yield _fence(text, start, end, note.end(), close)
            first = end
        at = text.find(_OPEN, first)


def _fence(text: str, start: int, end: int, first: int, close: int) -> Block:
    recalled = text[first:close]
    lines = recalled.split("\n")
    items = [line for line in lines if line.startswith("- ")]
    # Only a plain list of single lines has entries of its own: else it is one memory.
    listed = _LIST.fullmatch(recalled) and len(set(items)) == len(items)
    keys = {it: f"hermes:recall:{hashed(it)}" for it in (items if listed else [recalled])}
    entries = tuple(Entry(key, it) for it, key in keys.items())

    def render(skipped: frozenset[str]) -> str:
        if skipped.issuperset(keys.values()):
            return ""
        left = [line for line in lines if keys.get(line) not in skipped]
        return text[start:first] + "\n".join(left) + text[close:end]

    return Block(start, end, entries, render)
