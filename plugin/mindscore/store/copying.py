"""Everything of one store to another, of whatever databases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Select,
    Table,
    and_,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    tuple_,
)

from mindscore._util.errors import UsageError
from mindscore.config.settings import StoreSettings
from mindscore.store.namespace import database_of
from mindscore.store.records import DAMAGE, check_record
from mindscore.store.schema import metadata
from mindscore.store.transactions import Transactions, replacing, upsert

BATCH_ROWS = 10_000
"""Rows that are read, and written, in one transaction."""

_TIMES = {
    "candidates": "found_at",
    "conversations": "seen_at",
    "ledger": "measured_at",
    "matrix_notes": "noted_at",
    "memories": "last_scored",
    "memory_texts": "last_seen",
    "passes": "done_at",
    "receipts": "verified_at",
    "removals": "measured_at",
    "reservations": "renewed_at",
    "rounds": "measured_at",
    "sends": "sent_at",
    "speeds": "measured_at",
    "trained": "trained_at",
}
"""The column that says which of two rows is the later one, where it is not ``scored_at``."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The number of rows of a table that were read, and of those that could not be kept.

    ``left_out`` counts those that are damaged, and those with a NUL character for PostgreSQL.
    """

    table: str
    rows: int
    left_out: int


async def copy_store(source: StoreSettings, target: StoreSettings) -> list[Copied]:
    """Copy all namespaces' rows of ``source`` to ``target``; return the counts by table.

    A row that is in both stays as it was found or measured last, so that a copy may be repeated,
    and goes on where one was interrupted.

    Raises:
        StoreError: one cannot be read, or the other not written.
        UsageError: both are the same.
    """
    if source.url == target.url:
        raise UsageError("both stores are the same: there is nothing to copy")
    one, other = database_of(source), database_of(target)
    return [await _copy_table(table, one, other) for table in metadata.sorted_tables]


async def _copy_table(table: Table, source: Transactions, target: Transactions) -> Copied:
    names = [column.name for column in table.columns]
    order = list(table.primary_key)
    count = left_out = 0
    last: Sequence[Any] | None = None
    while True:
        # Unchecked: a damaged row has what its column may not hold.
        query = select(*(text(f'"{name}"') for name in names)).select_from(table)
        if last is not None:
            query = query.where(tuple_(*order) > tuple_(*last))
        query = query.order_by(*order).limit(BATCH_ROWS)
        found = await source.read(partial(_fetch, query=query))
        rows = [dict(zip(names, row, strict=True)) for row in found]
        intact = [row for row in rows if _is_intact(table, row)]
        left_out += await target.write(partial(_write, table=table, rows=intact))
        left_out += len(rows) - len(intact)
        count += len(rows)
        if len(rows) < BATCH_ROWS:
            return Copied(str(table.name), count, left_out)
        last = [rows[-1][column.name] for column in order]


def _fetch(connection: Connection, query: Select[Any]) -> Sequence[Any]:
    return connection.execute(query).all()


def _is_intact(table: Table, row: dict[str, Any]) -> bool:
    try:
        check_record(table, row)
    except DAMAGE:
        return False
    return True


def _write(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Write rows; return how many the database cannot hold."""
    fit = rows
    if connection.dialect.name == "postgresql":
        fit = [row for row in rows if not _has_nul(row)]
    if "id" in table.primary_key:
        for row in fit:
            _insert_new(connection, table, row)
    else:
        when = table.c[_TIMES.get(table.name, "scored_at")]
        upsert(
            connection,
            table,
            fit,
            replacing(table),
            # NULL: imported, never measured.
            where=lambda new: func.coalesce(new[when.name], 0.0) > func.coalesce(when, 0.0),
        )
    return len(rows) - len(fit)


def _has_nul(row: Mapping[str, Any]) -> bool:
    return any(isinstance(it, str) and "\0" in it for it in row.values())


def _insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert a row under a number of its own, unless there is one with the same values."""
    columns: list[Column[Any]] = [it for it in table.columns if not it.primary_key]
    same = and_(*(it.is_not_distinct_from(row[it.name]) for it in columns))
    values = select(*(literal(row[it.name], it.type) for it in columns)).where(
        ~exists().where(same)
    )
    connection.execute(insert(table).from_select([it.name for it in columns], values))
