"""A PostgreSQL database through SQLAlchemy Core and psycopg."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar
from weakref import WeakSet

from sqlalchemy import Connection, Engine, bindparam, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from mindscore._util.errors import StoreError
from mindscore._util.text import one_line
from mindscore.config.settings import without_password
from mindscore.store.migrations import migrate, revision_of
from mindscore.store.schema import STORE, Schema
from mindscore.store.transactions import Transactions

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10
"""Time that the server may take to answer at all."""

LOCK_TIMEOUT_S = 25.0
"""Time that a transaction waits for others: less than a listener may take, so it can say why."""

IDLE_TIMEOUT_S = 60.0
"""Time after which the server ends a writing transaction whose process does nothing more."""

POOL_CONNECTIONS = 2
"""Connections of a process that stay open; as many threads as there are may use more for a time."""

MOST_EXTRA_CONNECTIONS = 8

LOCK_KEY = 0x6D696E6473636F72
"""The advisory lock of whoever writes: the bytes of ``mindscor``."""

_BEGIN_WRITING = text(
    "SELECT set_config('lock_timeout', :lock_ms, true), "
    "set_config('idle_in_transaction_session_timeout', :idle_ms, true), "
    "pg_advisory_xact_lock(:key)"
).bindparams(bindparam("lock_ms"), bindparam("idle_ms"), key=LOCK_KEY)

_TABLES = text(
    "SELECT coalesce(array_agg(tablename::text), '{}') FROM pg_tables "
    "WHERE schemaname = current_schema()"
)

_VERSION = text("SELECT version_num FROM alembic_version")

_REASONS = {
    "08": "the connection was lost ({message})",
    "22": "it cannot hold a value: {message}",
    "28": "it does not let this user in ({message}): PGPASSWORD or ~/.pgpass may have the password",
    "3D": "{message}: createdb makes it",
    "40": "others changed the same at the same time ({message}): try again",
    "42501": "this user may not do that ({message})",
    "53": "the server is short of something ({message})",
    "55P03": "it is locked: another process has been busy with it for {wait:g} s",
    "57P": "the server is stopping or starting ({message})",
}
"""What is said of an error by how its SQLSTATE begins."""


class PostgreSQL(Transactions):
    """A PostgreSQL database: one transaction that writes at a time, and any number that read."""

    def __init__(self, url: str, schema: Schema = STORE) -> None:
        super().__init__(without_password(url), schema)
        self._engine = _engine(url)

    def read_now(self, work: Callable[[Connection], T]) -> T:
        with self._guarded():
            with self._engine.connect() as connection:
                # One snapshot for the version and for what is read.
                connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
                with connection.begin():
                    version = self._checked_version(connection)
                    if version == self._schema.version:
                        return work(connection)
            return self._read_nothing(work) if version is None else self._write(work)

    def _write(self, work: Callable[[Connection], T]) -> T:
        with self._engine.begin() as connection:
            # As in SQLite nobody writes between what is read here and what is written, and of many
            # that meet an empty or older database one makes it what it is to be.
            limits = {"lock_ms": LOCK_TIMEOUT_S, "idle_ms": IDLE_TIMEOUT_S}
            connection.execute(
                _BEGIN_WRITING, {name: f"{1000 * s:.0f}" for name, s in limits.items()}
            )
            migrate(connection, self._schema, self._checked_version(connection))
            return work(connection)

    def _checked_version(self, connection: Connection) -> int | None:
        """Return the schema's version, ``None`` for a database without tables."""
        found = set(connection.execute(_TABLES).scalar_one())
        if not found:
            return None
        known = {revision_of(it): it for it in range(self._schema.first, self._schema.version + 1)}
        if found >= {"alembic_version", *self._schema.tables}:
            revision = connection.execute(_VERSION).scalar_one()
            if revision in known:
                return known[revision]
            if revision.isdecimal():
                raise self._refuse(int(revision))
        raise StoreError(
            f"{self._place} is a database of something else: use another one, or a schema of its "
            "own (?options=-csearch_path%3DSCHEMA at the end of store.url)"
        )

    @property
    def _damage(self) -> str:
        return "it holds what no mindscore has written"

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with super()._guarded():
            try:
                yield
            except DBAPIError as error:
                # Without its cause, whose details quote the row.
                raise StoreError(f"{self._place}: {self._explain(error)}") from None
            except PoolTimeoutError as error:
                raise StoreError(
                    f"{self._place}: this process has had all its connections in use for "
                    f"{LOCK_TIMEOUT_S:g} s"
                ) from error

    def _explain(self, error: DBAPIError) -> str:
        # Never the whole text: its details quote rows.
        diagnosis = getattr(error.orig, "diag", None)
        message = getattr(diagnosis, "message_primary", None) or str(error.orig)
        message = one_line(message, 300)
        state = getattr(error.orig, "sqlstate", None)
        if state is None:
            # psycopg's own: it has not reached the server, or refuses a value.
            is_value = type(error.orig).__name__ == "DataError"
            return f"it cannot hold a value: {message}" if is_value else message
        reason = next(
            (it for begin, it in _REASONS.items() if state.startswith(begin)), "{message}"
        )
        return reason.format(message=message, wait=LOCK_TIMEOUT_S)


@lru_cache(maxsize=16)
def _engine(url: str) -> Engine:
    """Return the engine of a database, with the connections that this process has to it.

    Raises:
        StoreError: ``url`` cannot be read, or psycopg is not installed.
    """
    shown = without_password(url)
    try:
        parsed = make_url(url)
    # Their texts may quote the password.
    except (ArgumentError, ValueError):
        raise StoreError(f"store.url: {shown} cannot be read as an address") from None
    options = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "mindscore"}
    options = {name: it for name, it in options.items() if name not in parsed.query}
    try:
        engine = create_engine(
            parsed,
            pool_size=POOL_CONNECTIONS,
            max_overflow=MOST_EXTRA_CONNECTIONS,
            pool_timeout=LOCK_TIMEOUT_S,
            # A server that was restarted has none of the old connections.
            pool_pre_ping=True,
            hide_parameters=True,
            # Statements that are prepared on a server do not go through every pooler before it.
            connect_args={**options, "prepare_threshold": None},
        )
    except ImportError as error:
        raise StoreError(
            f"store.url: PostgreSQL needs psycopg ({error}); install it with: "
            "pip install 'mindscore[postgres]'"
        ) from None
    _engines.add(engine)
    return engine


_engines: WeakSet[Engine] = WeakSet()


def _forget_connections() -> None:
    """Leave the connections of the process that this one was forked from to it."""
    for engine in _engines:
        engine.dispose(close=False)


def close_all() -> None:
    """Close the connections of this process that nobody uses; the next transaction opens one."""
    for engine in _engines:
        engine.dispose()


os.register_at_fork(after_in_child=_forget_connections)
atexit.register(close_all)
