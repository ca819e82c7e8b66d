"""SQLite files through SQLAlchemy Core."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from mindscore._util.errors import StoreError
from mindscore._util.files import make_file
from mindscore.config.settings import POSTGRESQL, SQLITE
from mindscore.store.migrations import migrate
from mindscore.store.schema import STORE, Schema
from mindscore.store.transactions import Transactions

T = TypeVar("T")

BUSY_TIMEOUT_S = 25.0
"""Time that a transaction waits for others: less than a listener may take, so it can say why."""

AGENT_TIMEOUT_S = 1.0
"""Time that a transaction waits for others while an agent waits for it."""

LONGEST_LOG_PAGES = 16_384
"""Pages of 4 KiB that a write-ahead log holds before a transaction moves them to the file."""

_REASONS = {
    sqlite3.SQLITE_BUSY: "it is locked: another process has been busy with it for {:g} s",
    sqlite3.SQLITE_FULL: "the disk is full, or the space that this user may take",
    sqlite3.SQLITE_READONLY: "it cannot be written: it, its folder or its disk is read-only",
    sqlite3.SQLITE_NOTADB: "it is not a database",
    sqlite3.SQLITE_CORRUPT: "it is damaged: put a copy in its place, or move it away",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened, or a file beside it cannot be made: is its "
    "folder there, and this user's to write?",
    sqlite3.SQLITE_IOERR: "reading or writing it failed: is its disk all right, and not full?",
}


def file_of(url: str) -> Path | None:
    """Return the file of the store at ``url``; the user's own if that is empty.

    ``None``: it is on a server.
    """
    if url.startswith(POSTGRESQL):
        return None
    if url:
        return Path(url.removeprefix(SQLITE)).absolute()
    import platformdirs

    return platformdirs.user_data_path("mindscore") / "store.sqlite3"


class Database(Transactions):
    """A SQLite file: one transaction that writes at a time, safe beside other processes."""

    def __init__(self, file: Path, schema: Schema = STORE) -> None:
        self._file = file = file.absolute()
        super().__init__(str(file), schema)
        if schema is not STORE:
            self._engine = _logged_engine(file)
            # Closed when nobody has this any more, yet not at the agent's end: that takes time.
            weakref.finalize(self, self._engine.dispose).atexit = False
        else:
            self._engine = _engine(file)

    def read_now(self, work: Callable[[Connection], T]) -> T:
        with self._guarded():
            try:
                self._file.stat()
            except FileNotFoundError:
                return self._read_nothing(work)
            with self._begun("BEGIN") as (connection, version):
                if version == self._schema.version:
                    return work(connection)
            return self._read_nothing(work) if version is None else self._write(work)

    def checkpoint(self) -> None:
        """Open the file, and move its write-ahead log into it; other threads go on meanwhile."""
        self.write_now(lambda _: None)
        with self._guarded(), self._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the file; the next transaction opens it again."""
        self._engine.dispose()

    @property
    def _patience_s(self) -> float:
        return AGENT_TIMEOUT_S if self._schema.beside_agent else BUSY_TIMEOUT_S

    @property
    def _damage(self) -> str:
        return _REASONS[sqlite3.SQLITE_CORRUPT]

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with super()._guarded():
            try:
                yield
            except OSError as error:
                why = error.strerror or error
                raise StoreError(f"{self._place}: {why}{self._key_hint}") from error
            # Path.resolve, of a link that leads to itself.
            except RuntimeError as error:
                raise StoreError(f"{self._place}: {error}{self._key_hint}") from error

    @property
    def _key_hint(self) -> str:
        return "; store.url names the file" if self._schema is STORE else ""

    def _write(self, work: Callable[[Connection], T]) -> T:
        # Resolved: a link to where nothing is yet is as good as a name.
        make_file(self._file.resolve())
        with self._begun("BEGIN IMMEDIATE") as (connection, version):
            migrate(connection, self._schema, version)
            result = work(connection)
            # A commit waits for the end of others' reading.
            self._retry_while_busy(lambda: connection.exec_driver_sql("COMMIT"))
            return result

    @contextmanager
    def _begun(self, begin: str) -> Iterator[tuple[Connection, int | None]]:
        """Yield a connection in a transaction, and the file's version; roll back at the end."""
        with self._engine.connect() as connection:
            synchronous = "NORMAL" if self._schema.beside_agent else "FULL"

            def start() -> int | None:
                connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
                # A transaction that reads first and writes later would fail at once where another
                # process wrote in between; IMMEDIATE takes the lock at the beginning.
                connection.exec_driver_sql(begin)
                try:
                    return self._checked_version(connection)
                except BaseException:
                    connection.rollback()
                    raise

            yield connection, self._retry_while_busy(start)

    def _checked_version(self, connection: Connection) -> int | None:
        """Return the schema's version, ``None`` for an empty file."""
        place, schema = self._place, self._schema
        version, page_size, tables = connection.exec_driver_sql(
            "SELECT user_version, page_size, (SELECT group_concat(name) FROM sqlite_master "
            "WHERE type = 'table') FROM pragma_user_version, pragma_page_size"
        ).one()
        if version > schema.version:
            raise self._refuse(version)
        found = set(tables.split(",")) if tables else set[str]()
        is_empty = version == 0 and not found
        if not is_empty and (version < schema.first or not found >= schema.tables):
            raise StoreError(f"{place} is a database of something else: use another file")
        if self._file.stat().st_size % page_size:
            # SQLite itself notices only where whole pages are missing.
            raise StoreError(f"{place}: {_REASONS[sqlite3.SQLITE_CORRUPT]}")
        return None if is_empty else int(version)

    def _retry_while_busy(self, step: Callable[[], T]) -> T:
        # SQLite's own waiting asks ever more rarely: of many processes, one may never get a turn.
        return Retrying(
            retry=retry_if_exception(_is_busy),
            wait=wait_random(0.001, 0.02),
            stop=stop_after_delay(self._patience_s),
            reraise=True,
        )(step)

    def _explain(self, error: DBAPIError) -> str:
        code = _code(error)
        reason = str(error.orig) if code is None else _REASONS.get(code, str(error.orig))
        if code == sqlite3.SQLITE_BUSY:
            return reason.format(self._patience_s)
        return reason + self._key_hint if code == sqlite3.SQLITE_CANTOPEN else reason


def _connect(file: Path) -> sqlite3.Connection:
    # In mode rw nothing is made that is not there, and what is read-only can be read. Transactions
    # are begun here, and waiting is done here; Python's driver begins them late.
    connection = sqlite3.connect(
        f"{file.as_uri()}?mode=rw",
        timeout=0,
        isolation_level=None,
        uri=True,
        check_same_thread=False,
    )
    connection.text_factory = decode_text
    return connection


def decode_text(text: bytes) -> str | bytes:
    """Return ``text``; as bytes, which no column may hold, where its row is damaged."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


# One for each file: an engine remembers how its statements are written out.
@lru_cache(maxsize=16)
def _engine(file: Path) -> Engine:
    return create_engine("sqlite://", creator=lambda: _connect(file), poolclass=NullPool)


def _logged_engine(file: Path) -> Engine:
    """Return an engine with a write-ahead log, whose connections stay open."""

    def connect() -> sqlite3.Connection:
        connection = _connect(file)
        try:
            # Another process may be doing the same; the first one does it for all.
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {LONGEST_LOG_PAGES}")
        except BaseException:
            connection.close()
            raise
        return connection

    return create_engine("sqlite://", creator=connect, poolclass=QueuePool)


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and _code(error) == sqlite3.SQLITE_BUSY


def _code(error: DBAPIError) -> int | None:
    """Return SQLite's primary result code, without what it adds in the higher bits."""
    if not isinstance(error.orig, sqlite3.Error):
        return None
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
