"""The part that databases share: functions in transactions, their errors, and upserts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    bindparam,
    create_engine,
    func,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from mindhooks import in_thread
from mindscore._util.errors import StoreError, format_error
from mindscore.store.migrations import migrate
from mindscore.store.schema import Schema

T = TypeVar("T")

Changes = Callable[[Any], Mapping[str, Any]]
"""A function from a new row's columns to the changes of the row that is there already."""


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    changes: Changes,
    where: Callable[[Any], ColumnElement[bool]] | None = None,
) -> None:
    """Insert ``rows``; where one is there already, set ``changes(the new row)`` instead.

    The row that is there stays as it is unless ``where(the new row)``.
    """
    if not rows:
        return
    is_postgresql = connection.dialect.name == "postgresql"
    statement: Any = sqlite.insert(table)
    if is_postgresql:
        from sqlalchemy.dialects import postgresql

        statement = postgresql.insert(table)
    parameters: Any = rows
    unique = {tuple(row[column.name] for column in table.primary_key) for row in rows}
    if is_postgresql and len(unique) == len(rows):
        # One statement for all rows, with an array for each column: many times as fast. It must
        # not meet a row twice.
        names = list(rows[0])
        statement = statement.from_select(names, _unnested(table, names))
        parameters = {f"_{name}": [row[name] for row in rows] for name in names}
    new = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_=dict(changes(new)),
        where=None if where is None else where(new),
    )
    connection.execute(statement, parameters)


def _unnested(table: Table, names: Sequence[str]) -> Select[Any]:
    """Return the query for rows whose columns are the arrays ``_NAME``, ``_OTHER``…"""
    arrays = [bindparam(f"_{name}", type_=ARRAY(table.c[name].type)) for name in names]
    found = func.unnest(*arrays).table_valued(*names).render_derived()
    return select(*(found.c[name] for name in names))


def replacing(table: Table) -> Changes:
    """Set all columns that are not part of the primary key, as in the new row."""
    return lambda new: {c.name: new[c.name] for c in table.columns if not c.primary_key}


def scored_later(table: Table) -> Callable[[Any], ColumnElement[bool]]:
    """Return the condition that a new row was scored later than the one that is there."""

    def is_later(new: Any) -> ColumnElement[bool]:
        later: ColumnElement[bool] = new["scored_at"] > table.c.scored_at
        return later

    return is_later


class Transactions(ABC):
    """Runs functions in transactions on one database, from any thread or event loop.

    Every method raises ``StoreError`` if the database cannot be opened, read or written, is
    something else's or damaged, or of a newer version. One of an older version is brought to the
    newest.
    """

    def __init__(self, place: str, schema: Schema) -> None:
        self._place = f"{schema.name} {place}"
        self._schema = schema

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do as ``read_now``, in a worker thread."""
        return await in_thread(self.read_now, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do as ``write_now``, in a worker thread."""
        return await in_thread(self.write_now, work)

    @abstractmethod
    def read_now(self, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` finds; one that is not there counts as empty, and is not made."""

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction that is committed at its end, or not at all."""
        with self._guarded():
            return self._write(work)

    @abstractmethod
    def _write(self, work: Callable[[Connection], T]) -> T:
        """Do as ``write_now``; what the database raises stays as it is."""

    @abstractmethod
    def _explain(self, error: DBAPIError) -> str:
        """Return in words why the database refused."""

    @property
    @abstractmethod
    def _damage(self) -> str:
        """Return what is said of values that cannot be."""

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(f"{self._place}: {self._explain(error)}") from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise StoreError(f"{self._place} cannot hold a value: {error}") from error
        # A damaged page may hold anything in the place of anything.
        except (SQLAlchemyError, msgspec.MsgspecError, ValueError, TypeError) as error:
            raise StoreError(f"{self._place}: {self._damage} ({format_error(error)})") from error

    def _read_nothing(self, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` finds in an empty database."""
        with _in_memory().connect() as connection:
            migrate(connection, self._schema, None)
            return work(connection)

    def _refuse(self, version: int) -> StoreError:
        """Return the error about a database of a newer version."""
        return StoreError(
            f"{self._place} has schema version {version}, this mindscore knows "
            f"{self._schema.version}: use the mindscore that wrote it, or another store"
        )


@lru_cache(maxsize=1)
def _in_memory() -> Engine:
    return create_engine("sqlite://", poolclass=NullPool)
