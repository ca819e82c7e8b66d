"""SQLite databases of other programs: read-only, and no longer than a while."""

from __future__ import annotations

import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

SQLITE = b"SQLite format 3\x00"
BESIDE = ("-journal", "-wal", "-shm")
"""What SQLite opens beside a database, without asking what it is."""

MAX_READING_S = 120.0
"""Longest time that a database is read: a view in it may be without end."""

_STEPS = 100_000
"""Steps of SQLite's machine between two looks at the clock: some milliseconds."""


@contextmanager
def opened(file: Path, held: bytes | None = None) -> Iterator[sqlite3.Connection]:
    """Open ``file`` read-only, or its content where that is ``held`` because no file has it.

    Raises:
        sqlite3.Error: it cannot be read.
        TimeoutError: it is not read within ``MAX_READING_S``.
    """
    watch = _Stopwatch()
    with closing(_connected(file) if held is None else _in_memory(held)) as connection:
        connection.row_factory = sqlite3.Row
        # It also lets Python see Ctrl-C while SQLite works.
        connection.set_progress_handler(watch.is_over, _STEPS)
        try:
            yield connection
        except sqlite3.OperationalError as error:
            if str(error) != "interrupted":
                raise
            if watch.spent_s <= MAX_READING_S:
                # SQLite swallows what is raised within its handler.
                raise KeyboardInterrupt from None
            raise TimeoutError(f"is not read within {MAX_READING_S:.0f} s") from None


class _Stopwatch:
    """The time that SQLite works; not that between two rows, which is the reader's."""

    _PAUSE_S = 1.0
    """Longest time between two looks at the clock that is all SQLite's."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._last = time.monotonic()

    def is_over(self) -> bool:
        """Return true once the time is spent."""
        now = time.monotonic()
        self.spent_s += min(now - self._last, self._PAUSE_S)
        self._last = now
        return self.spent_s > MAX_READING_S


def _in_memory(content: bytes) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    # A log beside it is not at hand, and a database in memory has none: bytes 18 and 19 say whether
    # there is one.
    connection.deserialize(content[:18] + b"\x01\x01" + content[20:])
    return connection


def _connected(file: Path) -> sqlite3.Connection:
    beside = [file.with_name(f"{file.name}{ending}") for ending in BESIDE]
    for it in beside:
        # A pipe would be waited for, and Ctrl-C would not end it.
        if it.exists() and not stat.S_ISREG(it.stat().st_mode):
            raise sqlite3.OperationalError(f"{it.name} beside it is no regular file")
    address = f"file:{quote(str(file.absolute()))}?mode=ro"
    connection = sqlite3.connect(address, uri=True)
    try:
        connection.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.OperationalError:
        connection.close()
        # SQLite makes files beside one that is written with a log: not in a read-only folder,
        # where nobody else writes either.
        if file.with_name(f"{file.name}-wal").exists():
            raise
        return sqlite3.connect(f"{address}&immutable=1", uri=True)
    except BaseException:
        connection.close()
        raise
    return connection
