"""Asks every recogniser, and takes what holds together."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import pluggy

from mindhooks import MindhooksError
from mindscore.errors import reason
from mindscore.recognisers import builtin
from mindscore.recognisers.block import Block, Unread
from mindscore.recognisers.spec import PROJECT, Recogniser
from mindscore.text import one_line

EXCERPT = 60


@dataclass(frozen=True, slots=True)
class Found:
    """The blocks of one message, in order, and a line for each that was not taken."""

    blocks: tuple[Block, ...]
    remarks: tuple[str, ...]


class MemoryFinder:
    """Finds memories with the recognisers that are installed; ``known`` ones literally, last.

    Of two blocks that overlap, the one of the recogniser asked first counts: third parties' before
    our own, ``tryfirst`` and ``trylast`` as pluggy has it.
    """

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self.known = dict(known or {})
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Recogniser)
        # Pluggy asks who came last first.
        for name, plugin in reversed(builtin.RECOGNISERS.items()):
            self._manager.register(plugin, name)
        self.remarks: list[str] = []
        """What is wrong with installed recognisers."""
        self._load()

    def _load(self) -> None:
        for entry in sorted(entry_points(group=PROJECT), key=lambda it: it.name):
            try:
                self._add(entry.name, entry.load())
            except KeyboardInterrupt:
                raise
            # A recogniser is anybody's code.
            except BaseException as error:
                self.remarks.append(
                    f"recogniser {one_line(entry.name, EXCERPT)} was skipped: {reason(error)}"
                )

    def _add(self, name: str, target: Any) -> None:
        made = inspect.isclass(target) or inspect.isroutine(target)
        plugin = target() if made else target
        if self._manager.has_plugin(name) or self._manager.is_registered(plugin):
            raise MindhooksError("another one has this name")
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
            if not self._manager.get_hookcallers(plugin):
                raise MindhooksError("it does not implement find_memories")
        except BaseException:
            self._manager.unregister(name=name)
            raise

    def find(self, role: str, text: str) -> Found:
        """The memories in a message's text; none in a response."""
        if role == "assistant" or not text:
            return Found((), ())
        taken: list[Block] = []
        remarks: list[str] = []
        for implementation in reversed(self._manager.hook.find_memories.get_hookimpls()):
            name = implementation.plugin_name
            for found in self._ask(implementation, role, text, taken):
                if isinstance(found, Block) and _is_known(found, taken):
                    continue
                if fault := _fault(found, text, taken):
                    remarks.append(f"recogniser {name}: {fault}")
                elif isinstance(found, Block):
                    taken.append(found)
        return Found(tuple(sorted(taken, key=lambda it: it.start)), tuple(remarks))

    def _ask(
        self, implementation: pluggy.HookImpl, role: str, text: str, taken: Sequence[Block]
    ) -> list[Any]:
        """What a recogniser found; what it raised, where it failed."""
        there = {entry.key for block in taken for entry in block.entries}
        known = {key: memory for key, memory in self.known.items() if key not in there}
        arguments = {"role": role, "text": text, "known": known}
        try:
            given = [arguments[argument] for argument in implementation.argnames]
            answer: Any = implementation.function(*given)
            return list(answer or ())
        except KeyboardInterrupt:
            raise
        # A recogniser is anybody's code.
        except BaseException as error:
            return [error]


def _overlapping(block: Block, taken: Sequence[Block]) -> list[Block]:
    return [it for it in taken if block.start < it.end and it.start < block.end]


def _is_known(block: Block, taken: Sequence[Block]) -> bool:
    """Whether a recogniser asked earlier found the same memories in the same place."""
    try:
        there = {entry.key for it in _overlapping(block, taken) for entry in it.entries}
        return bool(there) and {entry.key for entry in block.entries} <= there
    except Exception:
        return False


def _fault(found: Any, text: str, taken: Sequence[Block]) -> str | None:
    """Why ``found`` is not taken, in words that name the place; ``None``: it is."""
    if isinstance(found, BaseException):
        return f"failed: {reason(found)}"
    if not isinstance(found, Block | Unread):
        return f"found what is no block: {one_line(repr(found), EXCERPT)}"
    try:
        said = one_line(text[found.start : found.end], EXCERPT)
        why = found.why if isinstance(found, Unread) else _block_fault(found, text, taken)
    except Exception as error:
        return f"a block cannot be rendered ({reason(error)}), and stays plain text"
    return why and f"{one_line(why, 3 * EXCERPT)}; this stays plain text: {said!r}"


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
