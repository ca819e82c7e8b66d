"""Find memories that somebody names, ``{key: text}``, wherever their text stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mindscore.recognisers.finder import Block, Entry, Unread, hookimpl

BULLETS = ("", "- ", "* ", "• ")


@dataclass(frozen=True, slots=True)
class _Place:
    """The span of a memory; ``line`` is the start of its line if that holds nothing else."""

    key: str
    start: int
    end: int
    line: int | None


class Literal:
    """Finds known texts as they are, without the white space around them.

    If texts overlap, the longer one counts. Lines that hold nothing else but a list's bullet go
    with their memory.
    """

    @hookimpl(trylast=True)
    def find_memories(self, text: str, known: Mapping[str, str]) -> Iterator[Block | Unread]:
        """Yield a block for each list of lines, and for each known text within a line."""
        places, hidden = _places(text, known)
        yield from hidden
        run: list[_Place] = []
        for place in places:
            if run and place.line != run[-1].end + 1:
                yield _block(text, run)
                run = []
            run.append(place)
            if place.line is None:
                yield _block(text, run)
                run = []
        if run:
            yield _block(text, run)


def _places(text: str, known: Mapping[str, str]) -> tuple[list[_Place], list[Unread]]:
    """Return the places of known texts, and those found only where another stands."""
    found: list[_Place] = []
    hidden: list[Unread] = []
    taken = bytearray(len(text))
    for key, given in sorted(known.items(), key=lambda it: (-len(it[1].strip()), it[0])):
        memory = given.strip()
        at = first = text.find(memory) if memory else -1
        places = []
        while at >= 0:
            end = at + len(memory)
            if taken.find(1, at, end) < 0:
                places.append(_Place(key, at, end, _line(text, at, end)))
                taken[at:end] = bytes([1]) * len(memory)
            at = text.find(memory, end)
        if first >= 0 and not places:
            why = f"{key!r} is found only where it overlaps another memory"
            hidden.append(Unread(first, first + len(memory), why))
        found += places
    return sorted(found, key=lambda it: it.start), hidden


def _line(text: str, start: int, end: int) -> int | None:
    line = text.rfind("\n", 0, start) + 1
    ends = end == len(text) or text[end] == "\n"
    return line if ends and text[line:start] in BULLETS else None


def _block(text: str, places: list[_Place]) -> Block:
    """Return one block of lines that follow each other, or of a text within a line."""
    entries = {it.key: Entry(it.key, text[it.start : it.end]) for it in places}
    lines = [(it.key, text[it.start if it.line is None else it.line : it.end]) for it in places]
    start, end = places[0].line, places[-1].end
    before = after = ""
    if start is None:
        start = places[0].start
    elif text.startswith("\n", end):
        after = "\n"
    elif text.endswith("\n", 0, start):
        before = "\n"

    def render(skipped: frozenset[str]) -> str:
        left = [line for key, line in lines if key not in skipped]
        return before + "\n".join(left) + after if left else ""

    return Block(start - len(before), end + len(after), tuple(entries.values()), render)
