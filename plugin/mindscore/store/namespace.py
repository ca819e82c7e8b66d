"""The rows of one namespace of the store, wherever that is, and how long they are kept."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Table,
    delete,
    func,
    select,
)

from mindscore.config.settings import StoreSettings
from mindscore.store.database import Database, file_of
from mindscore.store.transactions import Transactions

DAY_S = 24 * 3600.0

JUMP_S = 7 * DAY_S
"""Time without a write after which the clock is taken to be wrong, until it is not."""

DAYS_TRUSTED = 3
"""Days with writes after such a time that show that the clock is right."""


def database_of(settings: StoreSettings) -> Transactions:
    """Return the database that ``store.url`` names.

    Raises:
        StoreError: it is PostgreSQL, and psycopg is not installed.
    """
    file = file_of(settings.url)
    if file is not None:
        return Database(file)
    from mindscore.store.postgresql import PostgreSQL

    return PostgreSQL(settings.url)


class NamespaceTables:
    """The rows of one namespace in the store; those older than ``retention_days`` may go."""

    def __init__(self, settings: StoreSettings) -> None:
        self._database = database_of(settings)
        self._namespace = settings.namespace
        self._retention_s = settings.retention_days * DAY_S

    def _in_namespace(self, table: FromClause) -> ColumnElement[bool]:
        return table.c.namespace == self._namespace

    def _select(self, table: Table, *columns: Any) -> Select[Any]:
        return select(*columns).where(self._in_namespace(table))

    def _with_namespace(self, **values: Any) -> dict[str, Any]:
        return {"namespace": self._namespace, **values}

    async def _all(self, query: Select[Any]) -> Sequence[Any]:
        return await self._database.read(lambda connection: connection.execute(query).all())

    async def _delete(self, table: Table, *where: Any) -> int:
        """Remove rows of the namespace; return how many."""
        statement = delete(table).where(self._in_namespace(table), *where)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)

    def _prune(
        self, connection: Connection, *times: Column[float], now: float | None = None
    ) -> None:
        """Remove, from the table of each column, what is older than is to be kept.

        A clock that jumps ahead removes nothing: see ``_believed_now``.
        """
        for when in times:
            oldest = self._oldest(connection, when, now)
            if oldest == -math.inf:
                return
            of_namespace = self._in_namespace(when.table)
            connection.execute(delete(when.table).where(of_namespace, when < oldest))

    def _oldest(
        self, connection: Connection, when: Column[float], now: float | None = None
    ) -> float:
        """Return the time before which what is in the table of ``when`` is not to be kept."""
        if not self._retention_s:
            return -math.inf
        believed = self._believed_now(connection, when, time.time() if now is None else now)
        return believed - self._retention_s

    def _believed_now(self, connection: Connection, when: Column[float], now: float) -> float:
        """Return ``now``, or the last write before a jump that few days of writing confirm."""
        of_namespace, later, believed = self._in_namespace(when.table), now, now
        before = when <= now
        for _ in range(DAYS_TRUSTED):
            query = select(func.max(when)).where(of_namespace, before)
            earlier = connection.execute(query).scalar()
            if not isinstance(earlier, float):
                break
            if later - earlier > JUMP_S:
                believed = earlier
            later = earlier
            before = when < earlier - earlier % DAY_S
        return believed
