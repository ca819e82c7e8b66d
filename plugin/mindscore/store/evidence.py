"""The evidence of a namespace: what each memory did to each response, as rows or as columns."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal, get_type_hints

import msgspec
from sqlalchemy import ColumnElement, tuple_

from mindscore.store.namespace import NamespaceTables
from mindscore.store.schema import cells
from mindscore.store.transactions import replacing, upsert

log = logging.getLogger("mindscore")

Mode = Literal["full", "incremental"]

Columns = dict[str, list[Any]]
"""Evidence by column: for each name of ``COLUMNS`` that was asked for, the values of its rows."""

BATCH_ROWS = 50_000
"""Rows of one batch, which is read in one transaction."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The effect of one memory on one response, as one model measured it.

    ``key`` names the memory, ``text_hash`` the text that it had; ``conversation`` is
    ``Context.id``. Each may be empty: it is not known. ``mode`` is ``"full"`` for a cell of the
    matrix and ``"incremental"`` for a response in the window of a score. ``divergence``,
    ``signed``, ``hold`` (the memory alone, signed) and ``noise`` are in nats; ``None``: not
    measured. ``tokens`` counts those of the response's body. ``responded_at``, the response's own
    time, and ``scored_at`` are in seconds since the epoch.
    """

    conversation: str
    model: str
    key: str
    text_hash: str
    mode: Mode
    node_id: str
    entry_idx: int
    divergence: float
    signed: float
    hold: float | None
    noise: float | None
    tokens: int | None
    responded_at: float | None
    scored_at: float


COLUMNS = Evidence.__slots__
"""The names of the columns of evidence, in order."""

KINDS: Mapping[str, Any] = get_type_hints(Evidence)
"""The type of each column's values."""

_LISTS: Mapping[str, Any] = {name: list.__class_getitem__(kind) for name, kind in KINDS.items()}

_ORDER = ("model", "conversation", "key", "text_hash", "node_id", "mode")


def rows_of(columns: Columns) -> Iterator[Evidence]:
    """Yield the rows of a batch that has all columns."""
    return itertools.starmap(Evidence, zip(*(columns[name] for name in COLUMNS), strict=True))


def columns_of(rows: Iterable[Evidence]) -> Columns:
    """Return rows as a batch of all columns."""
    values = list(zip(*map(astuple, rows), strict=True)) or [()] * len(COLUMNS)
    return {name: list(its) for name, its in zip(COLUMNS, values, strict=True)}


class EvidenceTables(NamespaceTables):
    """The evidence of one namespace: the part of ``Store`` that is about cells of both modes."""

    async def evidence(
        self,
        model: str | None = None,
        *,
        since: float | None = None,
        conversation: str | None = None,
        keys: Sequence[str] | None = None,
        mode: Mode | None = None,
        columns: Sequence[str] = COLUMNS,
        batch_rows: int = BATCH_ROWS,
    ) -> AsyncIterator[Columns]:
        """Yield the evidence in batches, ordered by model, conversation, key, text and response.

        Only that of ``model``, scored at ``since`` or later (seconds since the epoch), in
        ``conversation``, of the memories ``keys`` and of ``mode``, where they are given. Each batch
        is a transaction of its own, so that others may write between two. Damaged rows are left
        out; the log says how many.

        Raises:
            StoreError: the store cannot be read.
        """
        fixed = {"model": model, "conversation": conversation, "mode": mode}
        names = tuple(dict.fromkeys((*columns, *_ORDER)))
        query = self._select(cells, *(cells.c[name] for name in names))
        for name, value in fixed.items():
            query = query if value is None else query.where(cells.c[name] == value)
        if since is not None:
            query = query.where(cells.c.scored_at >= since)
        if keys is not None:
            query = query.where(cells.c.key.in_(keys))
        # Without those that are fixed, so that the index leads to where the last batch ended.
        order = [cells.c[name] for name in _ORDER if fixed.get(name) is None]
        last: Sequence[str] | None = None
        while True:
            page = query if last is None else query.where(tuple_(*order) > tuple_(*last))
            page = page.order_by(*order).limit(batch_rows)
            found = await self._all(page)
            if found:
                batch = _intact_columns(found, names)
                yield {name: batch[name] for name in columns}
            if len(found) < batch_rows:
                return
            place = dict(zip(names, found[-1], strict=True))
            last = [place[column.name] for column in order]

    async def add_evidence(self, rows: Iterable[Evidence]) -> int:
        """Keep evidence that was measured elsewhere; return how many rows were given.

        Of two rows about the same memory, text, response, model and mode the one that was scored
        later is kept, so that adding the same rows twice changes nothing.

        Raises:
            StoreError: the store cannot be written; some batches of rows may be kept.
        """
        count, its = 0, iter(rows)
        while batch := list(itertools.islice(its, BATCH_ROWS)):
            count += await self.add_columns(columns_of(batch))
        return count

    async def add_columns(self, columns: Columns) -> int:
        """Keep one batch of evidence, with all columns, as ``add_evidence`` does."""
        names = ("namespace", *COLUMNS)
        values = zip(*(columns[name] for name in COLUMNS), strict=True)
        rows = [dict(zip(names, (self._namespace, *row), strict=True)) for row in values]

        def is_newer(new: Any) -> ColumnElement[bool]:
            newer: ColumnElement[bool] = new["scored_at"] > cells.c.scored_at
            return newer

        await self._database.write(
            lambda connection: upsert(connection, cells, rows, replacing(cells), where=is_newer)
        )
        return len(rows)


def _intact_columns(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> Columns:
    """Return rows as columns, without those that are damaged."""
    try:
        return checked_columns(dict(zip(names, zip(*rows, strict=True), strict=True)))
    except msgspec.ValidationError:
        kinds = [KINDS[name] for name in names]
        intact = [row for row in rows if _is_intact(row, kinds)]
    log.warning(
        "%d damaged cells of the store are left out; see mindscore store check",
        len(rows) - len(intact),
    )
    values = zip(*intact, strict=True) if intact else [()] * len(names)
    return checked_columns(dict(zip(names, values, strict=True)))


def checked_columns(columns: Mapping[str, Sequence[Any]]) -> Columns:
    """Return columns of evidence as lists.

    Raises:
        msgspec.ValidationError: a value is none that its column may have.
    """
    return {name: msgspec.convert(values, type=_LISTS[name]) for name, values in columns.items()}


def _is_intact(row: Sequence[Any], kinds: Sequence[Any]) -> bool:
    try:
        for value, kind in zip(row, kinds, strict=True):
            msgspec.convert(value, type=kind)
    except msgspec.ValidationError:
        return False
    return True
