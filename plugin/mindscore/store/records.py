"""Records as they are read: one that is damaged is named and left out, the others are not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from sqlalchemy import BigInteger, Connection, Table, select, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from mindhooks import FinetuneCandidate, MemoryScore
from mindscore._util.errors import StoreError
from mindscore._util.text import one_line
from mindscore.config.settings import TOKEN_ID_LIMIT, StoreSettings
from mindscore.measure.prompts import response_hash
from mindscore.store.namespace import database_of
from mindscore.store.schema import (
    candidates,
    matrix_notes,
    metadata,
    receipts,
    removals,
    reviews,
    rows,
    sends,
)

T = TypeVar("T")

DAMAGE = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""The exceptions that a damaged record leads to."""

log = logging.getLogger("mindscore")
_named: set[tuple[str, int]] = set()
"""Damaged records that this process has named already."""


class row_id(FunctionElement[int]):  # noqa: N801 - reads as the function of SQL that it is
    """The number of a record within its table, by which it can be removed.

    In PostgreSQL it is the record's place, which changes when the record does.
    """

    inherit_cache = True
    type = BigInteger()

    def __init__(self, table: Table) -> None:
        super().__init__(next(iter(table.columns)))


@compiles(row_id)
def _rowid(element: row_id, compiler: SQLCompiler, **_: Any) -> str:
    return f"{_quoted(element, compiler)}.rowid"


@compiles(row_id, "postgresql")
def _ctid(element: row_id, compiler: SQLCompiler, **_: Any) -> str:
    place = f"({_quoted(element, compiler)}.ctid::text::point)"
    # A page has less than 2 ** 16 records.
    return f"({place}[0]::bigint * 65536 + {place}[1]::bigint)"


def _quoted(element: row_id, compiler: SQLCompiler) -> str:
    [column] = element.clauses
    return compiler.preparer.format_table(column.table)


def intact(table: Table, found: Iterable[Any], make: Callable[..., T | None]) -> Iterator[T]:
    """Yield ``make(*columns)`` of each row, whose first column is its ``row_id``.

    A row of which ``make`` raises is damaged: it is named in the log, once, and left out. So is one
    that ``make`` answers with ``None``, without a word.
    """
    for number, *columns in found:
        try:
            record = make(*columns)
        except DAMAGE as error:
            _name(table, number, error)
        else:
            if record is not None:
                yield record


def _name(table: Table, number: int, error: Exception) -> None:
    if (table.name, number) not in _named:
        _named.add((table.name, number))
        why = one_line(str(error), 200)
        log.warning(
            "the store's record %s:%s is damaged and left out: %s; see mindscore store check",
            table.name,
            number,
            why,
        )


def checked(kind: Callable[..., T]) -> Callable[..., T]:
    """Return a function that makes a ``kind`` of a row's columns, and raises if a type is wrong."""
    names = kind.__slots__  # type: ignore[attr-defined]

    def make(*columns: Any) -> T:
        made: T = msgspec.convert(dict(zip(names, columns, strict=True)), type=kind)
        return made

    return make


def decode_candidate(encoded: str, continuation_hash: str | None = None) -> FinetuneCandidate:
    """Return a candidate as it was kept.

    Raises:
        ValueError: it is damaged, or is not the response of ``continuation_hash``.
        msgspec.MsgspecError: it is no candidate.
    """
    found = msgspec.json.decode(encoded, type=FinetuneCandidate)
    check_candidate(found)
    if continuation_hash not in (None, response_hash(found.continuation_ids)):
        raise ValueError("its token ids are not those that it was kept with")
    return found


def check_candidate(candidate: FinetuneCandidate) -> None:
    """Raise ``ValueError`` if any of a candidate's token ids can be no model's."""
    for name in ("context_ids", "bare_context_ids", "continuation_ids", "alternate_ids"):
        ids = getattr(candidate, name)
        if ids and not 0 <= min(ids) <= max(ids) < TOKEN_ID_LIMIT:
            raise ValueError(f"{name}: a token id is not between 0 and {TOKEN_ID_LIMIT - 1}")
    if not candidate.continuation_ids:
        raise ValueError("continuation_ids: there are none")


@dataclass(frozen=True, slots=True)
class Damage:
    """A record that cannot be read: its id, ``TABLE:NUMBER``, and what is wrong with it."""

    id: str
    reason: str


class Records:
    """All records of the store, of every namespace; methods may raise ``StoreError``."""

    def __init__(self, settings: StoreSettings) -> None:
        self._database = database_of(settings)

    async def damaged(self) -> list[Damage]:
        """List the damaged records, table by table; an index that disagrees is named as such."""
        return await self._database.read(_all_damage)

    async def left_out(self) -> list[Damage]:
        """List the damaged records that this process came across and left out; it is quick."""
        if not _named:
            return []
        return await self._database.read(
            lambda connection: [
                damage
                for name, number in sorted(_named)
                for damage in _damage(connection, metadata.tables[name], number)
            ]
        )

    async def drop(self, ids: Iterable[str]) -> int:
        """Remove damaged records by their ids; return how many.

        Raises:
            StoreError: one is not there, or not damaged; then none is removed.
        """
        wanted = list(dict.fromkeys(ids))

        def work(connection: Connection) -> int:
            found = {it.id for it in _all_damage(connection)}
            for id_ in wanted:
                if id_ not in found:
                    raise StoreError(f"{id_} is no damaged record: see mindscore store check")
            # An index that lacks a damaged row, or holds it twice, would keep it from being found.
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("REINDEX")
            for id_ in wanted:
                name, _, number = id_.partition(":")
                table = metadata.tables[name]
                connection.execute(table.delete().where(row_id(table) == int(number)))
            return len(wanted)

        return await self._database.write(work)


def _all_damage(connection: Connection) -> list[Damage]:
    return [it for table in metadata.sorted_tables for it in _damage(connection, table)]


def _damage(connection: Connection, table: Table, number: int | None = None) -> Iterator[Damage]:
    """Yield the damaged records of a table, or whether the one of that number is."""
    query = select(row_id(table), *(text(f'"{it.name}"') for it in table.columns))
    query = query.select_from(table)
    if number is not None:
        query = query.where(row_id(table) == number)
    for found, *values in connection.execute(query):
        try:
            check_record(table, dict(zip(table.columns.keys(), values, strict=True)))
        except DAMAGE as error:
            yield Damage(f"{table.name}:{found}", one_line(str(error), 200))


def damage_remark(damaged: Sequence[Damage]) -> str:
    """Return a line that says how many records are damaged, and what shows them."""
    what = "record of the store is" if len(damaged) == 1 else "records of the store are"
    return f"{len(damaged)} {what} damaged and left out (mindscore store check)"


def check_record(table: Table, row: dict[str, Any]) -> None:
    """Raise one of ``DAMAGE`` if a row of ``table`` has what none may have."""
    for column in table.columns:
        value = row[column.name]
        if value is None and column.nullable:
            continue
        if not isinstance(value, (column.type.python_type, int)) or isinstance(value, bool):
            raise ValueError(f"{column.name}: expected {column.type.python_type.__name__}")
        if column.type.python_type is str and not isinstance(value, str):
            raise ValueError(f"{column.name}: expected str")
    if table is candidates:
        decode_candidate(row["candidate"], row["continuation_hash"])
    elif table is rows:
        msgspec.json.decode(row["row"], type=MemoryScore)
    elif table is reviews:
        from mindscore.store.reviews import Review

        msgspec.json.decode(row["review"], type=Review)
    elif table is matrix_notes:
        from mindscore.store.matrix_notes import Notes

        Notes.of({row["kind"]: row["note"]})
    elif table is receipts:
        from mindscore.store.verifications import decode_receipt

        decode_receipt(row["receipt"])
    elif table.name == "ledger":
        from mindscore.store.ledger import decode_reworded

        decode_reworded(row["reworded"])
    elif table.name == "rounds":
        from mindscore.store.ledger import decode_unrelated

        decode_unrelated(row["unrelated"])
    elif table is removals:
        from mindscore.store.verifications import MeasuredRemoval

        msgspec.json.decode(row["removal"], type=MeasuredRemoval)
    elif table is sends:
        from mindscore.store.sends import decode_sample

        decode_sample(row["sample"], row["timestamp_ns"], row["namespace"])
