"""A SQLite file through SQLAlchemy Core: one transaction at a time, safe beside other processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from mindhooks import in_thread
from mindscore.config import SQLITE
from mindscore.errors import StoreError
from mindscore.store.schema import VERSION, metadata

T = TypeVar("T")

BUSY_TIMEOUT_S = 30


class Database:
    """Runs functions in transactions, each in a worker thread on a connection of its own."""

    def __init__(self, url: str) -> None:
        self._file = _file(url)
        self._engine = create_engine(
            URL.create("sqlite", database=str(self._file)),
            poolclass=NullPool,
            connect_args={"timeout": BUSY_TIMEOUT_S},
        )
        event.listen(self._engine, "connect", _on_connect)
        event.listen(self._engine, "begin", _on_begin)

    async def transact(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction that is committed at its end, or not at all.

        Raises:
            StoreError: the file cannot be opened, read or written, or a newer version wrote it.
        """
        return await in_thread(self._transact, work)

    def _transact(self, work: Callable[[Connection], T]) -> T:
        file = self._file
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not file.exists():
                file.touch(mode=0o600)
            with self._engine.begin() as connection:
                _require_schema(connection, file)
                return work(connection)
        except DBAPIError as error:
            raise StoreError(f"the store {file}: {error.orig}") from error
        except OSError as error:
            raise StoreError(f"the store {file}: {error.strerror or error}") from error
        except OverflowError as error:
            raise StoreError(f"the store {file} cannot hold a number: {error}") from error


def _file(url: str) -> Path:
    if url:
        return Path(url.removeprefix(SQLITE))
    import platformdirs

    return platformdirs.user_data_path("mindscore") / "store.sqlite3"


def _on_connect(connection: Any, _: object) -> None:
    # Python's driver would begin transactions by itself, and late: after the first read.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")


def _on_begin(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail at once where another process
    # wrote in between; one that takes the lock at its beginning waits for it.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _require_schema(connection: Connection, file: Path) -> None:
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version == VERSION:
        return
    if version != 0:
        raise StoreError(
            f"the store {file} has schema version {version}, this mindscore knows {VERSION}: "
            "use the mindscore that wrote it, or another file"
        )
    metadata.create_all(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
