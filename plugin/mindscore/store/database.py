"""SQLite files through SQLAlchemy Core: one transaction at a time, safe beside other processes."""

from __future__ import annotations

import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Select,
    Table,
    create_engine,
    delete,
    func,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from mindhooks import in_thread
from mindscore._util.errors import StoreError, format_error
from mindscore._util.files import make_file
from mindscore.config.settings import SQLITE, StoreSettings
from mindscore.store.schema import STORE, Schema

T = TypeVar("T")

DAY_S = 24 * 3600.0

JUMP_S = 7 * DAY_S
"""Time without a write after which the clock is taken to be wrong, until it is not."""

DAYS_TRUSTED = 3
"""Days with writes after such a time that show that the clock is right."""

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
    statement = insert(table)
    new = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_=dict(changes(new)),
        where=None if where is None else where(new),
    )
    connection.execute(statement, rows)


def replacing(table: Table) -> Changes:
    """Set all columns that are not part of the primary key, as in the new row."""
    return lambda new: {c.name: new[c.name] for c in table.columns if not c.primary_key}


def file_of(url: str) -> Path:
    """Return the file of the store at ``url``; the user's own if that is empty."""
    if url:
        return Path(url.removeprefix(SQLITE)).absolute()
    import platformdirs

    return platformdirs.user_data_path("mindscore") / "store.sqlite3"


class Database:
    """Runs functions in transactions on one file, from any thread or event loop.

    Every method raises ``StoreError`` if the file cannot be opened, read or written, is something
    else's or damaged, or of a newer version. A file of an older version is brought to the newest.
    """

    def __init__(self, file: Path, schema: Schema = STORE) -> None:
        self._file = file = file.absolute()
        self._schema = schema
        if schema.beside_agent:
            self._engine = _logged_engine(file)
            # Closed when nobody has this any more, yet not at the agent's end: that takes time.
            weakref.finalize(self, self._engine.dispose).atexit = False
        else:
            self._engine = _engine(file)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do as ``read_now``, in a worker thread."""
        return await in_thread(self.read_now, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do as ``write_now``, in a worker thread."""
        return await in_thread(self.write_now, work)

    def read_now(self, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` finds; a missing file counts as an empty one, and is not made."""
        with self._guarded():
            try:
                self._file.stat()
            except FileNotFoundError:
                return self._read_nothing(work)
            with self._begun("BEGIN") as (connection, version):
                if version == self._schema.version:
                    return work(connection)
            return self._read_nothing(work) if version is None else self._write(work)

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction that is committed at its end, or not at all."""
        with self._guarded():
            return self._write(work)

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

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        place = f"{self._schema.name} {self._file}"
        try:
            yield
        except DBAPIError as error:
            raise StoreError(f"{place}: {self._explain(error)}") from error
        except OSError as error:
            raise StoreError(f"{place}: {error.strerror or error}{self._key_hint}") from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise StoreError(f"{place} cannot hold a value: {error}") from error
        # Path.resolve, of a link that leads to itself.
        except RuntimeError as error:
            raise StoreError(f"{place}: {error}{self._key_hint}") from error
        # A damaged page may hold anything in the place of anything.
        except (SQLAlchemyError, msgspec.MsgspecError, ValueError, TypeError) as error:
            damage = _REASONS[sqlite3.SQLITE_CORRUPT]
            raise StoreError(f"{place}: {damage} ({format_error(error)})") from error

    @property
    def _key_hint(self) -> str:
        return "" if self._schema.beside_agent else "; store.url names the file"

    def _write(self, work: Callable[[Connection], T]) -> T:
        # Resolved: a link to where nothing is yet is as good as a name.
        make_file(self._file.resolve())
        with self._begun("BEGIN IMMEDIATE") as (connection, version):
            migrate(connection, self._schema, version)
            result = work(connection)
            # A commit waits for the end of others' reading.
            self._retry_while_busy(lambda: connection.exec_driver_sql("COMMIT"))
            return result

    def _read_nothing(self, work: Callable[[Connection], T]) -> T:
        with _in_memory().connect() as connection:
            migrate(connection, self._schema, None)
            return work(connection)

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
        place, schema = f"{self._schema.name} {self._file}", self._schema
        version, page_size, tables = connection.exec_driver_sql(
            "SELECT user_version, page_size, (SELECT group_concat(name) FROM sqlite_master "
            "WHERE type = 'table') FROM pragma_user_version, pragma_page_size"
        ).one()
        if version > schema.version:
            raise StoreError(
                f"{place} has schema version {version}, this mindscore knows {schema.version}: "
                "use the mindscore that wrote it, or another file"
            )
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


class NamespaceTables:
    """The rows of one namespace in the store; those older than ``retention_days`` may go."""

    def __init__(self, settings: StoreSettings) -> None:
        self._database = Database(file_of(settings.url))
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
        if not self._retention_s:
            return
        for when in times:
            believed = self._believed_now(connection, when, time.time() if now is None else now)
            of_namespace = self._in_namespace(when.table)
            oldest = believed - self._retention_s
            connection.execute(delete(when.table).where(of_namespace, when < oldest))

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


def migrate(
    connection: Connection, schema: Schema, version: int | None, target: int | None = None
) -> None:
    """Bring a file of ``version``, ``None`` for an empty one, to ``target``, else the newest."""
    newest = schema.version if target is None else target
    if version == newest:
        return
    if version is None:
        schema.metadata.create_all(connection, checkfirst=False)
    else:
        for step in schema.steps[version - schema.first : newest - schema.first]:
            for statement in step:
                connection.exec_driver_sql(statement)
    connection.exec_driver_sql(f"PRAGMA user_version = {newest}")


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
    connection.text_factory = _decoded
    return connection


def _decoded(text: bytes) -> str | bytes:
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


@lru_cache(maxsize=1)
def _in_memory() -> Engine:
    return create_engine("sqlite://", poolclass=NullPool)


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and _code(error) == sqlite3.SQLITE_BUSY


def _code(error: DBAPIError) -> int | None:
    """Return SQLite's primary result code, without what it adds in the higher bits."""
    if not isinstance(error.orig, sqlite3.Error):
        return None
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
