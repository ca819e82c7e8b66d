"""Find known texts where hosts print memories, whatever white space stands between their words."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mindscore.recognisers.finder import Block, Entry, Unread, hookimpl

_BULLET = re.compile(r"[ \t]*(?:[-*+•]|\d{1,3}[.)])?[ \t]*")
_BULLET_CHARACTERS = 16
"""Longest bullet, with the indentation before it."""

_OPENING = re.compile(
    r"<(?P<name>[\w:-]*memor[\w:-]*|system-reminder|user_instructions|instructions)(?=[\s>])[^<>]*>",
    re.IGNORECASE,
)
"""The tags between which hosts print memories in a user's message."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The span of a memory; ``line`` is the start of its line if that holds nothing else."""

    key: str
    start: int
    end: int
    line: int | None


class Literal:
    """Finds known texts; white space between their words may differ, as where a host wraps lines.

    A text is found where words begin and end, not within one: "cat" is not in "concatenate". In a
    user's message it is found between tags that hosts print memories in, such as ``<memories>``;
    elsewhere in it only if its key is among ``anywhere``. One without a letter or a digit, such as
    an empty bullet, is in too many places to be told from other text, and is not looked for. If
    texts overlap, the longer one counts. Lines that hold nothing else but a list's bullet go with
    their memory.
    """

    @hookimpl(trylast=True)
    def find_memories(
        self, role: str, text: str, known: Mapping[str, str], anywhere: Collection[str]
    ) -> Iterator[Block | Unread]:
        """Yield a block for each list of lines, and for each known text within a line."""
        if role == "user":
            blocks = list(_host_blocks(text))
            known = known if blocks else {key: known[key] for key in known if key in anywhere}
        else:
            blocks, anywhere = [], known
        places, hidden = _places(text, known, anywhere, blocks) if known else ([], [])
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


def standing_in(texts: Iterable[str], known: Mapping[str, str]) -> list[str]:
    """Return the keys of ``known`` texts that stand in one of ``texts``, at the bounds of words."""
    left = {key: _forms(memory.strip()) for key, memory in known.items()}
    for text in texts:
        words = _Words(text)
        for key in [key for key, forms in left.items() if any(map(words.holds, forms))]:
            del left[key]
    return [key for key in known if key not in left]


def _places(
    text: str,
    known: Mapping[str, str],
    anywhere: Collection[str],
    blocks: Sequence[tuple[int, int]],
) -> tuple[list[_Place], list[Unread]]:
    """Return the places of known texts, and those found only where another stands.

    Keys that are not among ``anywhere`` have places within ``blocks`` only.
    """
    found: list[_Place] = []
    hidden: list[Unread] = []
    taken = bytearray(len(text))
    words = _Words(text)
    for key, given in sorted(known.items(), key=lambda it: (-len(it[1].strip()), it[0])):
        memory = given.strip()
        if not any(map(str.isalnum, memory)):
            if memory and (at := text.find(memory)) >= 0:
                why = f"{key!r} holds no letter or digit, so that its places cannot be told"
                hidden.append(Unread(at, at + len(memory), why))
            continue
        first = None
        places = []
        for start, end in (it for form in _forms(memory) for it in words.occurrences(form)):
            if key not in anywhere and not any(a <= start and end <= b for a, b in blocks):
                continue
            first = (start, end) if first is None else first
            if taken.find(1, start, end) < 0:
                places.append(_Place(key, start, end, _line(text, start, end)))
                taken[start:end] = bytes([1]) * (end - start)
        if first is not None and not places:
            why = f"{key!r} is found only where it overlaps another memory"
            hidden.append(Unread(*first, why))
        found += places
    return sorted(found, key=lambda it: it.start), hidden


def _host_blocks(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans between the tags in which hosts print memories."""
    end, unclosed = 0, set[str]()
    for opening in _OPENING.finditer(text):
        closing = f"</{opening['name']}>"
        if opening.start() < end or closing in unclosed:
            continue
        found = text.find(closing, opening.end())
        if found < 0:
            unclosed.add(closing)
        else:
            end = found
            yield opening.end(), end


_GAP = re.compile(r"\s+")


def _gap(space: str) -> str:
    """Return what stands for white space: a paragraph's end is more than a line's."""
    return "\n\n" if space.count("\n") > 1 else " "


@lru_cache(maxsize=1 << 16)
def _forms(memory: str) -> tuple[str, ...]:
    """Return the forms in which a text is printed: as it is, on one line, within JSON or XML.

    JSON within JSON, too: so tools print the result of another tool.
    """
    forms = [memory, " ".join(memory.split())]
    forms += [html.escape(memory, quote=quoted) for quoted in (False, True)]
    for ascii_only in (False, True):
        once = json.dumps(memory, ensure_ascii=ascii_only)[1:-1]
        forms += [once, json.dumps(once, ensure_ascii=ascii_only)[1:-1]]
    return tuple(dict.fromkeys(_GAP.sub(lambda it: _gap(it[0]), form) for form in forms if form))


class _Words:
    """A text with even white space between its words, and where each stands in the original."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts: list[int] = []
        self._there: list[int] = []
        pieces: list[str] = []
        at, length = 0, 0
        for gap in _GAP.finditer(text):
            for piece, start in ((text[at : gap.start()], at), (_gap(gap[0]), gap.start())):
                self._starts.append(length)
                self._there.append(start)
                pieces.append(piece)
                length += len(piece)
            at = gap.end()
        self._starts.append(length)
        self._there.append(at)
        self._even = "".join((*pieces, text[at:]))

    def occurrences(self, form: str) -> Iterator[tuple[int, int]]:
        """Yield the spans of ``form`` at the bounds of words, none of which overlap."""
        at = self._even.find(form)
        while at >= 0:
            end = at + len(form)
            if _is_within_word(self._even, at) or _is_within_word(self._even, end):
                end = at + 1
            else:
                yield self._original(at), self._original(end - 1) + 1
            at = self._even.find(form, end)

    def holds(self, form: str) -> bool:
        """Return true if ``form`` is somewhere."""
        return next(self.occurrences(form), None) is not None

    def _original(self, at: int) -> int:
        piece = bisect_right(self._starts, at) - 1
        return self._there[piece] + at - self._starts[piece]


_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese; and Korean, whose particles follow the word."""


def _is_within_word(text: str, at: int) -> bool:
    around = text[at - 1 : at + 1] if at else ""
    is_word = len(around) == 2 and all(map(_is_of_word, around))
    return is_word and not _WITHOUT_SPACES.search(around)


def _is_of_word(character: str) -> bool:
    """Return true of letters, digits, the marks on them, and what joins the words of a name."""
    if character.isalnum() or character == "_":
        return True
    return unicodedata.category(character).startswith("M")


def _line(text: str, start: int, end: int) -> int | None:
    """Return where the line of ``start`` begins if a memory to ``end`` is all that it holds."""
    if end < len(text) and text[end] != "\n":
        return None
    # No farther back than a bullet is long: lines may be as long as the message.
    first = max(0, start - 1 - _BULLET_CHARACTERS)
    line = text.rfind("\n", first, start) + 1
    is_near = line > 0 or first == 0
    return line if is_near and _BULLET.fullmatch(text, line, start) else None


def _block(text: str, places: list[_Place]) -> Block:
    """Return one block of lines that follow each other, or of a text within a line."""
    times = Counter(it.key for it in places)
    entries = {
        it.key: Entry(it.key, text[it.start : it.end], times[it.key]) for it in reversed(places)
    }
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

    return Block(start - len(before), end + len(after), tuple(entries.values())[::-1], render)
