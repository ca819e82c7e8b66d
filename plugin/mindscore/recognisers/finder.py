"""Find the memories in a message: ask the installed recognisers, then look for known texts."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pluggy

from mindscore._util.errors import format_error
from mindscore._util.extensions import Extension, load_extensions
from mindscore._util.text import one_line

Render = Callable[[frozenset[str]], str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One memory as it stands in the message; the same key always means the same memory."""

    key: str
    text: str
    times: int = 1
    """How often it stands in the block."""


@dataclass(frozen=True, slots=True)
class Block:
    """The half-open span ``start`` to ``end`` of a message's text, and the memories in it.

    ``render(skipped)`` returns the text that the host would have printed there without the entries
    of the skipped keys, separators and headers included; with none skipped, the span's own text.
    """

    start: int
    end: int
    entries: tuple[Entry, ...]
    render: Render


@dataclass(frozen=True, slots=True)
class Unread:
    """A span that looks like memories but does not parse: it stays plain text, with a remark."""

    start: int
    end: int
    why: str


def hashed(text: str) -> str:
    """Return twelve hexadecimal digits of a hash, for the key of an entry without a name."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


PROJECT = "mindscore.recognisers"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Recogniser:
    """The hook specification of recognisers."""

    @hookspec
    def find_memories(
        self, role: str, text: str, known: Mapping[str, str], anywhere: Collection[str]
    ) -> Iterable[Block | Unread]:
        """Return the blocks of memories in a message that is not a response.

        ``known`` are memories that the host or the user names, ``{key: text}``, without those that
        a recogniser asked earlier found in this message. ``anywhere`` are the keys of those that
        may stand in what the user typed; of the others, the same words there are no memory. An
        implementation names the arguments that it takes. Never guess: text that does not parse
        exactly is no block, but ``Unread`` if it looks like one. A block whose ``render`` does not
        give back its own text, or that overlaps an earlier one, is refused with a remark.
        """
        raise NotImplementedError


EXCERPT_CHARACTERS = 60
"""Longest piece of a message that a remark quotes."""

MAX_REMARKS = 20
"""Remarks on one message; how many more there are is said in one line."""


@dataclass(frozen=True, slots=True)
class Found:
    """The blocks of one message, in order, and a line for each that was not taken."""

    blocks: tuple[Block, ...]
    remarks: tuple[str, ...]


class MemoryFinder:
    """Finds memories with the installed recognisers; ``known`` ones literally, last.

    ``anywhere`` are the keys of known ones that are looked for in what the user typed, too. If two
    blocks overlap, the one of the recogniser asked first counts. Third parties' are asked before
    our own; ``tryfirst`` and ``trylast`` are pluggy's. Without ``quotes``, remarks quote nothing of
    a message, for a log.
    """

    def __init__(
        self,
        known: Mapping[str, str] | None = None,
        anywhere: Collection[str] = (),
        *,
        quotes: bool = True,
    ) -> None:
        self._quotes = quotes
        self.known = dict(known or {})
        self.anywhere = frozenset(anywhere)
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Recogniser)
        self.remarks: list[str] = []
        """A line for each installed recogniser that was skipped."""
        # pluggy calls the plugin that was registered last first: others' before our own.
        for extension in load_extensions(PROJECT):
            error = extension.error or self._register(extension)
            if error is not None:
                self.remarks.append(f"recogniser {extension.name} was skipped: {error}")

    def _register(self, extension: Extension) -> str | None:
        """Register a recogniser; return why it was refused, or ``None``."""
        manager, name, plugin = self._manager, extension.name, extension.loaded
        if manager.is_registered(plugin):
            return "it is registered under another name"
        try:
            manager.register(plugin, name)
            manager.check_pending()
        except KeyboardInterrupt:
            raise
        # A recogniser is anybody's code.
        except BaseException as error:
            refusal = format_error(error)
        else:
            if manager.get_hookcallers(plugin):
                return None
            refusal = "it does not implement find_memories"
        manager.unregister(name=name)
        return refusal

    def find(self, role: str, text: str) -> Found:
        """Return the memories in a message's text; none in a response."""
        if role == "assistant" or not text:
            return Found((), ())
        # In order of their places: a message may hold tens of thousands.
        taken: list[Block] = []
        remarks: list[str] = []
        for implementation in reversed(self._manager.hook.find_memories.get_hookimpls()):
            name = implementation.plugin_name
            for found in self._ask(implementation, role, text, taken):
                if isinstance(found, Block) and _is_known(found, taken):
                    continue
                if fault := _fault(found, text, taken, quotes=self._quotes):
                    remarks.append(f"recogniser {name}: {fault}")
                elif isinstance(found, Block):
                    insort(taken, found, key=_start)
        if len(remarks) > MAX_REMARKS:
            more = len(remarks) - MAX_REMARKS
            remarks[MAX_REMARKS:] = [f"recognisers: {more} more such places stay plain text"]
        return Found(tuple(taken), tuple(remarks))

    def _ask(
        self, implementation: pluggy.HookImpl, role: str, text: str, taken: Sequence[Block]
    ) -> list[Any]:
        """Return the answer of a recogniser, or the exception that it raised, in a list."""
        there = {entry.key for block in taken for entry in block.entries}
        known = {key: memory for key, memory in self.known.items() if key not in there}
        arguments = {"role": role, "text": text, "known": known, "anywhere": self.anywhere}
        try:
            given = [arguments[argument] for argument in implementation.argnames]
            answer: Any = implementation.function(*given)
            return list(answer or ())
        except KeyboardInterrupt:
            raise
        # A recogniser is anybody's code.
        except BaseException as error:
            return [error]


def _start(block: Block) -> int:
    return block.start


def _overlapping(block: Block, taken: Sequence[Block]) -> Sequence[Block]:
    """Return the blocks that share a character with ``block``; ``taken`` do not overlap."""
    first = bisect_right(taken, block.start, key=_end)
    return taken[first : max(first, bisect_left(taken, block.end, key=_start))]


def _end(block: Block) -> int:
    return block.end


def _is_known(block: Block, taken: Sequence[Block]) -> bool:
    """Return true if a recogniser asked earlier found the same memories in the same place."""
    try:
        there = {entry.key for it in _overlapping(block, taken) for entry in it.entries}
        return bool(there) and {entry.key for entry in block.entries} <= there
    except Exception:
        return False


def _fault(found: Any, text: str, taken: Sequence[Block], *, quotes: bool) -> str | None:
    """Return the reason to refuse ``found``, with its place, or ``None`` if it is taken."""
    if isinstance(found, BaseException):
        return f"failed: {format_error(found) if quotes else type(found).__name__}"
    if not isinstance(found, Block | Unread):
        what = repr(found) if quotes else type(found).__name__
        return f"found something that is no block: {one_line(what, EXCERPT_CHARACTERS)}"
    try:
        # A span may be as long as the message, and there may be thousands of them.
        end = min(found.end, found.start + 4 * EXCERPT_CHARACTERS)
        excerpt = one_line(text[found.start : end], EXCERPT_CHARACTERS)
        why = found.why if isinstance(found, Unread) else _block_fault(found, text, taken)
    except Exception as error:
        return f"a block cannot be rendered ({format_error(error)}), and stays plain text"
    left = f"this stays plain text: {excerpt!r}" if quotes else "it stays plain text"
    return why and f"{one_line(why, 3 * EXCERPT_CHARACTERS)}; {left}"


def _block_fault(block: Block, text: str, taken: Sequence[Block]) -> str | None:
    keys = frozenset(entry.key for entry in block.entries)
    if not 0 <= block.start < block.end <= len(text) or not keys:
        return "a block is no part of the message"
    if len(keys) < len(block.entries):
        return "a block holds the same memory twice"
    if _overlapping(block, taken):
        return "a block overlaps another"
    if not isinstance(block.render(keys), str):
        return "a block without its memories is no text"
    if block.render(frozenset()) != text[block.start : block.end]:
        return "a block is not as its host prints it"
    return None
