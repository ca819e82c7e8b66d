"""The evidence of a store in pages: columns of cells, read so that a million take seconds."""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Literal, get_type_hints

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, func, select, tuple_
from sqlalchemy.exc import DBAPIError

from mindscore.store.database import decode_text
from mindscore.store.schema import cells

log = logging.getLogger("mindscore")

Mode = Literal["full", "incremental", "estimate"]

Columns = Mapping[str, list[Any]]
"""Evidence by column: for each name of ``COLUMNS`` that was asked for, the values of its rows."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The effect of one memory on one response, as one model measured it.

    ``key`` names the memory, ``text_hash`` the text that it had; ``conversation`` is
    ``Context.id``. Each may be empty: it is not known. ``mode`` is ``"full"`` for a cell of the
    matrix, ``"incremental"`` for a response in the window of a score, and ``"estimate"`` for a
    cell that a screen has estimated and nothing measured: its ``noise`` is the estimates'
    error. ``divergence``, ``signed``, ``hold`` (the memory alone, signed) and ``noise`` are in
    nats; ``None``: not measured. ``tokens`` counts those of the response's body.
    ``responded_at``, the response's own time, and ``scored_at`` are in seconds since the epoch.
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

GROUPS = ("model", "conversation", "key", "text_hash")
"""The columns that rows are ordered by first: those of one group have the same values."""

_FIRST_GROUPS = 1000
"""Groups that are read before it is known how many rows they have."""

_ROWS_AT_ONCE = 500
"""Rows that become columns together: as many as the processor's cache holds, twice as fast."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Columns):
    """A part of the evidence: a mapping of ``names`` of columns to the values of its rows.

    ``groups`` are columns of texts that rows which follow one another share, each text once;
    ``counts`` are how many rows share it. ``rows`` are columns with a value for each row.
    """

    names: Sequence[str]
    groups: Mapping[str, Sequence[str]]
    counts: Sequence[int]
    rows: Mapping[str, list[Any]]

    def __getitem__(self, name: str) -> list[Any]:
        """Return the values of a column, one for each row."""
        if name in self.rows:
            return self.rows[name]
        return list(itertools.chain.from_iterable(map(repeat, self.groups[name], self.counts)))

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the columns."""
        return iter(self.names)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.names)


class Pages:
    """Reads the ``columns`` of the cells that fulfil ``where``, a page in each transaction.

    ``groups`` are those of ``GROUPS`` that may differ. A page has at most ``most_rows`` rows, or
    one group of more. The texts of a group are read once and not with each of its rows, which takes
    half as long.
    """

    def __init__(
        self,
        where: Sequence[ColumnElement[bool]],
        groups: Sequence[str],
        columns: Sequence[str],
        most_rows: int,
    ) -> None:
        self._where, self._wanted = where, columns
        self._names = list(groups)
        self._columns = [name for name in columns if name not in groups]
        self._groups = [cells.c[name] for name in groups]
        self._most_rows = most_rows
        self._last: Sequence[str] | None = None
        self._limit = min(_FIRST_GROUPS, most_rows)

    def next(self, connection: Connection) -> Batch | None:
        """Return the next page, empty if all in it is damaged; ``None`` at the end."""
        try:
            if connection.dialect.name == "sqlite":
                # Faster than the store's own, which lets damaged texts through.
                _driver(connection).text_factory = str
            return self._read(connection)
        except DBAPIError as error:
            if "decode" not in str(error.orig):
                raise
        _driver(connection).text_factory = decode_text
        return self._read(connection)

    def _read(self, connection: Connection) -> Batch | None:
        where = [*self._where]
        if self._last is not None:
            where.append(tuple_(*self._groups) > tuple_(*self._last))
        query = select(*self._groups, func.count()).where(*where).group_by(*self._groups)
        query = query.order_by(*self._groups).limit(self._limit)
        groups = [row for rows in _fetched(connection, query) for row in rows]
        if not groups:
            return None
        found = self._within_limit(groups)
        *texts, counts = zip(*found, strict=True)
        last = found[-1][:-1]
        where.append(tuple_(*self._groups) <= tuple_(*last))
        order = (*self._groups, cells.c.node_id, cells.c.mode)
        columns = [cells.c[name] for name in self._columns]
        values: list[list[Any]] = [[] for _ in columns]
        if columns:
            for rows in _fetched(connection, select(*columns).where(*where).order_by(*order)):
                for column, more in zip(values, zip(*rows, strict=True), strict=True):
                    column += more
        self._last = last
        self._limit = max(1, self._most_rows * len(found) // sum(counts))
        named = dict(zip(self._names, texts, strict=True))
        return _intact(
            Batch(self._wanted, named, counts, dict(zip(self._columns, values, strict=True)))
        )

    def _within_limit(self, groups: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Return the groups of a page."""
        rows = list(itertools.accumulate(group[-1] for group in groups))
        size = max(1, sum(count <= self._most_rows for count in rows))
        # The next page begins after the last of these, which a damaged name does not allow.
        while not all(isinstance(it, str) for it in groups[:size][-1][:-1]):
            size += 1
            if size > len(groups):
                raise ValueError("the name of a memory or conversation is no text")
        return groups[:size]


def _fetched(connection: Connection, query: Select[Any]) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Yield the driver's own tuples, ``_ROWS_AT_ONCE`` together."""
    result = connection.execute(query)
    try:
        while result.cursor is not None and (rows := result.cursor.fetchmany(_ROWS_AT_ONCE)):
            yield rows
    except connection.dialect.loaded_dbapi.Error as error:
        # As SQLAlchemy's own reading does, so that the database explains it.
        raise DBAPIError(None, None, error) from error
    finally:
        result.close()


def _driver(connection: Connection) -> sqlite3.Connection:
    found: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return found


def _intact(batch: Batch) -> Batch:
    """Return a batch without the rows that are damaged."""
    try:
        groups, rows = checked_columns(batch.groups), checked_columns(batch.rows)
        return replace(batch, groups=groups, rows=rows)
    except msgspec.ValidationError:
        names = (*batch.groups, *batch.rows)
        kinds = [KINDS[name] for name in names]
    texts, others = list(batch.groups.values()), list(batch.rows.values())
    numbers = itertools.chain.from_iterable(map(repeat, itertools.count(), batch.counts))
    intact = []
    for at, number in enumerate(numbers):
        row = [*(column[number] for column in texts), *(column[at] for column in others)]
        if _is_intact(row, kinds):
            intact.append((number, row))
    log.warning(
        "%d damaged cells of the store are left out; see mindscore store check",
        sum(batch.counts) - len(intact),
    )
    counts = Counter(number for number, _ in intact)
    whole = dict(intact)
    groups = {name: [whole[it][at] for it in counts] for at, name in enumerate(batch.groups)}
    rows = {name: [row[at] for _, row in intact] for at, name in enumerate(batch.rows, len(texts))}
    return Batch(batch.names, checked_columns(groups), [*counts.values()], checked_columns(rows))


def checked_columns(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Return columns of evidence as lists.

    Raises:
        msgspec.ValidationError: a value is none that its column may have.
    """
    return {name: msgspec.convert(values, type=_LISTS[name]) for name, values in columns.items()}


def _is_intact(row: Iterable[Any], kinds: Sequence[Any]) -> bool:
    try:
        for value, kind in zip(row, kinds, strict=True):
            msgspec.convert(value, type=kind)
    except msgspec.ValidationError:
        return False
    return True
