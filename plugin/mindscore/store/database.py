"""A SQLite file through SQLAlchemy Core: one transaction at a time, safe beside other processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from mindhooks import in_thread
from mindscore._util.errors import StoreError
from mindscore._util.files import make_file
from mindscore.config.settings import SQLITE
from mindscore.store.migrations import VERSION, migrate

Changes = Callable[[Any], Mapping[str, Any]]
"""What to set in a row that is there already, given the new one's columns."""


def upsert(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], changes: Changes
) -> None:
    """Insert ``rows``; where one is there already, set ``changes(the new row)`` instead."""
    if not rows:
        return
    statement = insert(table)
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key), set_=dict(changes(statement.excluded))
    )
    connection.execute(statement, rows)


def replacing(table: Table) -> Changes:
    """Set all columns that are not part of the primary key, as in the new row."""
    return lambda new: {c.name: new[c.name] for c in table.columns if not c.primary_key}


T = TypeVar("T")

BUSY_TIMEOUT_S = 25.0
"""How long a transaction waits for others: less than a listener may take, which is told why."""

_OURS = {"memories", "cells", "candidates", "trained"}
"""Tables that every version has."""

_REASONS = {
    sqlite3.SQLITE_BUSY: "it is locked: another process has been busy with it for "
    f"{BUSY_TIMEOUT_S:g} s",
    sqlite3.SQLITE_FULL: "the disk is full, or the space that this user may take",
    sqlite3.SQLITE_READONLY: "it cannot be written: it, its folder or its disk is read-only",
    sqlite3.SQLITE_NOTADB: "it is not a database",
    sqlite3.SQLITE_CORRUPT: "it is damaged: put a copy in its place, or move it away",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened, or a file beside it cannot be made: is its "
    "folder there, and this user's to write?",
    sqlite3.SQLITE_IOERR: "reading or writing it failed: is its disk all right, and not full?",
}


class Database:
    """Runs functions in transactions, each in a worker thread on a connection of its own."""

    def __init__(self, url: str) -> None:
        self._file = file_of(url)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` finds; a store that is not there yet is an empty one, and is not made.

        Raises:
            StoreError: the file cannot be opened or read, it is no store, or a newer version's; or
                it is an older version's, and cannot be written.
        """
        return await in_thread(self._guarded, self._read, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction that is committed at its end, or not at all.

        Raises:
            StoreError: the file cannot be opened, read or written, it is no store, or a newer
                version's.
        """
        return await in_thread(self._guarded, self._write, work)

    def _guarded(self, act: Callable[[Callable[[Connection], T]], T], work: Callable[..., T]) -> T:
        file = self._file
        try:
            return act(work)
        except DBAPIError as error:
            raise StoreError(f"the store {file}: {_explain(error)}") from error
        except OSError as error:
            raise StoreError(f"the store {file}: {error.strerror or error}") from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise StoreError(f"the store {file} cannot hold a value: {error}") from error

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            self._file.stat()
        except FileNotFoundError:
            return _read_nothing(work)
        with self._begun("BEGIN") as (connection, version):
            if version == VERSION:
                return work(connection)
        if version == 0:
            return _read_nothing(work)
        return self._write(work)

    def _write(self, work: Callable[[Connection], T]) -> T:
        # Resolved: a link to where nothing is yet is as good as a name.
        make_file(self._file.resolve())
        with self._begun("BEGIN IMMEDIATE") as (connection, version):
            migrate(connection, version)
            result = work(connection)
            # A commit waits for the end of others' reading.
            _patiently(lambda: connection.exec_driver_sql("COMMIT"))
            return result

    @contextmanager
    def _begun(self, begin: str) -> Iterator[tuple[Connection, int]]:
        """A connection in a transaction, and the file's version; at the end, a rollback."""
        with _engine(str(self._file)).connect() as connection:

            def start() -> int:
                connection.exec_driver_sql("PRAGMA synchronous = FULL")
                # A transaction that reads first and writes later would fail at once where another
                # process wrote in between; IMMEDIATE takes the lock at the beginning.
                connection.exec_driver_sql(begin)
                try:
                    return self._checked_version(connection)
                except BaseException:
                    connection.rollback()
                    raise

            yield connection, _patiently(start)

    def _checked_version(self, connection: Connection) -> int:
        """The schema's version, 0 for an empty file."""
        file = self._file
        version, page_size, tables = connection.exec_driver_sql(
            "SELECT user_version, page_size, (SELECT group_concat(name) FROM sqlite_master "
            "WHERE type = 'table') FROM pragma_user_version, pragma_page_size"
        ).one()
        if version > VERSION:
            raise StoreError(
                f"the store {file} has schema version {version}, this mindscore knows {VERSION}: "
                "use the mindscore that wrote it, or another file"
            )
        found = set(tables.split(",")) if tables else set[str]()
        if not (found >= _OURS if version > 0 else version == 0 and not found):
            raise StoreError(f"the store {file} is a database of something else: use another file")
        if file.stat().st_size % page_size:
            # SQLite itself notices only where whole pages are missing.
            raise StoreError(f"the store {file}: {_REASONS[sqlite3.SQLITE_CORRUPT]}")
        return int(version)


def file_of(url: str) -> Path:
    """The file of a store; the user's own where ``url`` is empty."""
    if url:
        return Path(url.removeprefix(SQLITE)).absolute()
    import platformdirs

    return platformdirs.user_data_path("mindscore") / "store.sqlite3"


# One for each file: an engine remembers how its statements are written out.
@lru_cache(maxsize=16)
def _engine(file: str) -> Engine:
    # In mode rw nothing is made that is not there, and what is read-only can be read.
    address = f"{Path(file).as_uri()}?mode=rw"
    return create_engine(
        "sqlite://",
        # Transactions are begun here, waiting is done here; Python's driver begins them late.
        creator=lambda: sqlite3.connect(address, timeout=0, isolation_level=None, uri=True),
        poolclass=NullPool,
    )


@lru_cache(maxsize=1)
def _empty() -> Engine:
    return create_engine("sqlite://", poolclass=NullPool)


def _read_nothing(work: Callable[[Connection], T]) -> T:
    with _empty().connect() as connection:
        migrate(connection, 0)
        return work(connection)


def _patiently(step: Callable[[], T]) -> T:
    # SQLite's own waiting asks ever more rarely: of many processes, one may never get its turn.
    return Retrying(
        retry=retry_if_exception(_is_busy),
        wait=wait_random(0.001, 0.02),
        stop=stop_after_delay(BUSY_TIMEOUT_S),
        reraise=True,
    )(step)


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and _code(error) == sqlite3.SQLITE_BUSY


def _code(error: DBAPIError) -> int | None:
    """SQLite's primary result code, without what it adds in the higher bits."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _explain(error: DBAPIError) -> str:
    code = _code(error)
    return _REASONS.get(code, str(error.orig)) if code is not None else str(error.orig)
