"""A file that one process at a time holds, and that the system lets go of when that ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mindscore.errors import StoreError
from mindscore.private_files import make_file


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
