"""hermes-agent: MEMORY.md and USER.md in the system prompt, and what a provider recalled.

As of 0.19.0 (``tools/memory_tool.py``, ``agent/system_prompt.py``): a header between rules states
the length of all entries, and its share of the limit; blank lines join the parts of the system
prompt, the blocks among them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

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
_NOTE = re.compile(r"\[System note: The following is recalled memory context, [^\]]{0,500}\]\n\n")
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
        return _header(self.kind, len(content), self.limit) + content


def _blocks(text: str) -> Iterator[Block | Unread]:
    rows: list[list[_File]] = []
    kinds: Counter[str] = Counter()
    for found in _found(text):
        if isinstance(found, Unread):
            yield found
            continue
        kinds[found.kind] += 1
        # Blocks that stand side by side share what joins them.
        if rows and rows[-1][-1].end + len(JOINER) == found.start:
            rows[-1].append(found)
        else:
            rows.append([found])
    for row in rows:
        yield _block(row, text, _doubt(row, kinds, text))


def _found(text: str) -> Iterator[_File | Unread]:
    """Yield the blocks whose headers are true; each character is looked at once."""
    at = 0
    while header := _HEADER.search(text, at):
        at = header.end()
        length, limit = _number(header[3]), _number(header[4])
        kind, end = _KINDS[header[1]], at + length
        # What follows is another part of the prompt, or nothing; an entry may quote a header.
        if (end == len(text) or text.startswith(JOINER, end)) and (
            header[0] == _header(kind, length, limit)
        ):
            texts = tuple(text[at:end].split(DELIMITER))
            yield _File(kind, texts, limit, header.start(), end)
            at = end
        else:
            why = "the block is not as its header says"
            yield Unread(header.start(), min(end, len(text)), why)


def _header(kind: str, length: int, limit: int) -> str:
    """Return the header that Hermes prints of ``length`` characters, rules included."""
    share = min(100, int((length / limit) * 100)) if limit > 0 else 0
    return f"{RULE}\n{TITLES[kind]} [{share}% — {length:,}/{limit:,} chars]\n{RULE}\n"


def _doubt(row: list[_File], kinds: Counter[str], text: str) -> str | None:
    """Return why the entries cannot be told for sure; ``None`` if they can."""
    for file in row:
        if _AMBIGUOUS in text[file.start : file.end]:
            return "an entry begins or ends with §, so that there are two ways to read the block"
        if kinds[file.kind] > 1:
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
    at, close = text.find(_OPEN), 0
    while at >= 0:
        first = at + len(_OPEN)
        # The same end may do for thousands of beginnings, or there may be none.
        if close < first and (close := text.find(_CLOSE, first)) < 0:
            return
        note = _NOTE.match(text, first, close)
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
