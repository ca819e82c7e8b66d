"""Tables of the store that are exported to files and imported: evidence, and what is about it."""

from __future__ import annotations

import itertools
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args, get_type_hints

import msgspec

from mindscore.store.archive import ConversationFacts, MemoryText, Pass
from mindscore.store.pages import Columns, Evidence
from mindscore.store.store import Store

Batches = Callable[[Store, str | None, int], AsyncIterator[Columns]]
"""Yields what a store has, of one model or of all, in batches of so many rows."""


@dataclass(frozen=True)
class FileTable:
    """A table as it is in a file.

    ``row`` is the class of its rows, whose fields are the columns. ``marks`` are columns by which a
    file of it is told from others, and ``when`` the column with the time that decides how long a
    row is kept. ``has_models``: each row is of one model.
    """

    name: str
    row: Any
    marks: frozenset[str]
    when: str
    has_models: bool
    batches: Batches
    add: Callable[[Store, Columns], Awaitable[object]]

    @property
    def noun(self) -> str:
        """The noun for one row in messages."""
        return "evidence" if self.row is Evidence else f"row of {self.name}"

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns, in order."""
        names: Sequence[str] = self.row.__slots__
        return names

    @cached_property
    def kinds(self) -> Mapping[str, Any]:
        """The type of each column's values."""
        return get_type_hints(self.row)

    def is_optional(self, name: str) -> bool:
        """Return whether a value may be missing."""
        return type(None) in get_args(self.kinds[name])

    def type_of(self, name: str) -> type:
        """Return what the values of a column are: ``str``, ``int`` or ``float``."""
        kinds = {self.kinds[name], *get_args(self.kinds[name])}
        return next((kind for kind in (int, float) if kind in kinds), str)

    def rows_of(self, columns: Columns) -> Iterator[Any]:
        """Yield the rows of a batch."""
        return itertools.starmap(self.row, zip(*(columns[it] for it in self.columns), strict=True))

    def checked(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """Return columns as a batch.

        Raises:
            msgspec.ValidationError: a value is none that its column may have.
        """
        kinds = {name: list.__class_getitem__(kind) for name, kind in self.kinds.items()}
        return {name: msgspec.convert(columns[name], type=kinds[name]) for name in self.columns}


def _read(read: Callable[[Store, str | None], Awaitable[Sequence[Any]]], row: Any) -> Batches:
    """Return the batches of a table that is read as a whole."""

    async def batches(store: Store, model: str | None, size: int) -> AsyncIterator[Columns]:
        found = await read(store, model)
        for first in range(0, len(found), size):
            rows = found[first : first + size]
            yield {name: [getattr(it, name) for it in rows] for name in row.__slots__}

    return batches


EVIDENCE: FileTable = FileTable(
    name="evidence",
    row=Evidence,
    marks=frozenset({"key", "node_id", "mode"}),
    when="scored_at",
    has_models=True,
    batches=lambda store, model, size: store.evidence(model, batch_rows=size),
    add=lambda store, columns: store.add_columns(columns),
)

TEXTS: FileTable = FileTable(
    name="texts",
    row=MemoryText,
    marks=frozenset({"key", "text_hash", "first_seen"}),
    when="last_seen",
    has_models=False,
    batches=_read(lambda store, _: store.memory_texts(), MemoryText),
    add=lambda store, columns: store.record_texts(TEXTS.rows_of(columns)),
)

CONVERSATIONS: FileTable = FileTable(
    name="conversations",
    row=ConversationFacts,
    marks=frozenset({"conversation", "title", "seen_at"}),
    when="seen_at",
    has_models=False,
    batches=_read(lambda store, _: store.conversations(), ConversationFacts),
    add=lambda store, columns: store.add_conversations(CONVERSATIONS.rows_of(columns)),
)

PASSES: FileTable = FileTable(
    name="passes",
    row=Pass,
    marks=frozenset({"conversation", "command", "fingerprint"}),
    when="done_at",
    has_models=True,
    batches=_read(lambda store, model: store.passes(model), Pass),
    add=lambda store, columns: store.add_passes(PASSES.rows_of(columns)),
)

FILE_TABLES = {it.name: it for it in (EVIDENCE, TEXTS, CONVERSATIONS, PASSES)}
"""The tables by their names."""
