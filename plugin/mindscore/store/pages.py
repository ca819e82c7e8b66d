"""The evidence of a store in pages: columns of cells, read so that a million take seconds."""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, func, select, tuple_
from sqlalchemy.exc import DBAPIError

from mindscore.store.database import decode_text
from mindscore.store.schema import cells

log = logging.getLogger("mindscore")

Mode = Literal["full", "incremental"]

Columns = dict[str, list[Any]]
"""Evidence by column: for each name of ``COLUMNS`` that was asked for, the values of its rows."""


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

GROUPS = ("model", "conversation", "key", "text_hash")
"""The columns that rows are ordered by first: those of one group have the same values."""

_FIRST_GROUPS = 1000
"""Groups that are read before it is known how many rows they have."""


class Pages:
    """Reads the cells that fulfil ``where``, a page in each transaction.

    ``groups`` are those of ``GROUPS`` that may differ, and ``columns`` the others that are wanted.
    A page has at most ``most_rows`` rows, or one group of more. The texts of a group are read once
    and not with each of its rows, which takes half as long.
    """

    def __init__(
        self,
        where: Sequence[ColumnElement[bool]],
        groups: Sequence[str],
        columns: Sequence[str],
        most_rows: int,
    ) -> None:
        self._where = where
        self._names, self._columns = list(groups), list(columns)
        self._groups = [cells.c[name] for name in groups]
        self._most_rows = most_rows
        self._last: Sequence[str] | None = None
        self._limit = min(_FIRST_GROUPS, most_rows)

    def next(self, connection: Connection) -> Columns | None:
        """Return the next page by column, empty if all in it is damaged; ``None`` at the end."""
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

    def _read(self, connection: Connection) -> Columns | None:
        where = [*self._where]
        if self._last is not None:
            where.append(tuple_(*self._groups) > tuple_(*self._last))
        query = select(*self._groups, func.count()).where(*where).group_by(*self._groups)
        query = query.order_by(*self._groups).limit(self._limit)
        groups = _fetch(connection, query)
        if not groups:
            return None
        found = self._within_limit(groups)
        last, counts = found[-1][:-1], [row[-1] for row in found]
        where.append(tuple_(*self._groups) <= tuple_(*last))
        columns = [cells.c[name] for name in (*self._columns, "entry_idx")]
        order = (*self._groups, cells.c.node_id, cells.c.mode)
        rows = _fetch(connection, select(*columns).where(*where).order_by(*order))
        self._last = last
        self._limit = max(1, self._most_rows * len(found) // len(rows))
        texts = zip(*(row[:-1] for row in found), strict=True)
        page = {
            name: list(itertools.chain.from_iterable(map(itertools.repeat, its, counts)))
            for name, its in zip(self._names, texts, strict=True)
        }
        values = list(zip(*rows, strict=True))[: len(self._columns)]
        return _intact({**page, **dict(zip(self._columns, values, strict=True))})

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


def _fetch(connection: Connection, query: Select[Any]) -> Sequence[tuple[Any, ...]]:
    """Return the driver's own tuples, which Python's collector does not track as other rows."""
    result = connection.execute(query)
    try:
        return result.cursor.fetchall() if result.cursor is not None else []
    except connection.dialect.loaded_dbapi.Error as error:
        # As SQLAlchemy's own reading does, so that the database explains it.
        raise DBAPIError(None, None, error) from error
    finally:
        result.close()


def _driver(connection: Connection) -> sqlite3.Connection:
    found: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return found


def _intact(page: Mapping[str, Sequence[Any]]) -> Columns:
    """Return a page without the rows that are damaged."""
    try:
        return checked_columns(page)
    except msgspec.ValidationError:
        kinds = [KINDS[name] for name in page]
        rows = list(zip(*page.values(), strict=True))
        intact = [row for row in rows if _is_intact(row, kinds)]
    log.warning(
        "%d damaged cells of the store are left out; see mindscore store check",
        len(rows) - len(intact),
    )
    values = zip(*intact, strict=True) if intact else [()] * len(page)
    return checked_columns(dict(zip(page, values, strict=True)))


def checked_columns(columns: Mapping[str, Sequence[Any]]) -> Columns:
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
