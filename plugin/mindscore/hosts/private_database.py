"""A small SQLite file of a host adapter, its owner's alone, safe beside other processes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mindscore.errors import StoreError
from mindscore.private_files import make_file

PATIENCE_S = 1.0
"""How long a transaction waits for another process: an agent waits with it."""


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
            raise StoreError(
                f"{self._what} {self.file}: {error}: is the disk full, or the file damaged? "
                "It may be moved away"
            ) from error

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
                # Nothing waits for the disk: a commit is the system's, not yet the disk's.
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(f"BEGIN IMMEDIATE; {self._schema} COMMIT;")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection
