"""A small SQLite file of a host adapter, its owner's alone, safe beside other processes."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from mindscore._util.errors import StoreError
from mindscore._util.files import make_file


class OneProcess:
    """Held by one process, and in it by one thread, at a time."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold it for the block, where nobody else does; whether it is held. Never waits.

        Raises:
            StoreError: the file cannot be made or opened.
        """
        try:
            make_file(self._file)
            connection = sqlite3.connect(self._file, timeout=0, isolation_level=None)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the lock {self._file}: {error}") from error
        with closing(connection):
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.Error as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise StoreError(f"the lock {self._file}: {error}") from error
                yield False
                return
            yield True


PATIENCE_S = 1.0
"""How long a transaction waits for another process: an agent waits with it."""

LONGEST_LOG = 16_384
"""Pages of 4 KiB in the log that nobody has prepared for so long that a transaction does it."""


class PrivateDatabase:
    """One connection, made on first use, and one transaction at a time, from any thread.

    A transaction outlives the process that makes it; the newest may be lost with the machine.
    ``what`` names the file in errors, ``schema`` makes its tables where they are not there.
    """

    def __init__(self, file: Path, what: str, schema: str) -> None:
        self.file = file
        self._what = what
        self._schema = schema
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is committed at the block's end, or not at all.

        Raises:
            StoreError: the file cannot be opened, read or written.
        """
        try:
            with self._lock:
                connection = self._connected()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                    raise
        except (sqlite3.Error, OSError) as error:
            raise self._fault(error) from error

    def prepare(self) -> None:
        """Open the file, and write to it what is in its log, which waits for the disk.

        Transactions of other threads go on meanwhile.

        Raises:
            StoreError: as with a transaction.
        """
        with self.transaction():
            pass
        try:
            with closing(sqlite3.connect(self.file, timeout=PATIENCE_S)) as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """Let go of the file. The next transaction opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            make_file(self.file)
            connection = sqlite3.connect(
                self.file, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
            )
            try:
                # Another process may be doing the same; whoever is first does it for all.
                with suppress(sqlite3.OperationalError):
                    connection.execute("PRAGMA journal_mode = WAL")
                # A commit is the system's, not yet the disk's, which an agent would wait for.
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(f"PRAGMA wal_autocheckpoint = {LONGEST_LOG}")
                connection.executescript(f"BEGIN IMMEDIATE; {self._schema} COMMIT;")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            # What nobody closes is closed when nobody has it, and not at the agent's end.
            weakref.finalize(self, connection.close).atexit = False
        return self._connection

    def _fault(self, error: sqlite3.Error | OSError) -> StoreError:
        return StoreError(
            f"{self._what} {self.file}: {error}: is the disk full, or the file damaged? "
            "It may be moved away"
        )
