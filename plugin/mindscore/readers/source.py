"""Files of conversations: their bytes, their JSON, and the place of an error in them."""

from __future__ import annotations

import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

from mindscore._util.errors import TranscriptError
from mindscore._util.files import decode, numbered_lines, read_content, unreadable
from mindscore._util.text import printable, shortened

T = TypeVar("T")
Found = TypeVar("Found")

SQLITE = b"SQLite format 3\x00"
BESIDE = ("-journal", "-wal", "-shm")
"""What SQLite opens beside a database, without asking what it is."""

MAX_READING_S = 120.0
"""Longest time that a database is read: a view in it may be without end."""

_STEPS = 100_000
"""Steps of SQLite's machine between two looks at the clock: some milliseconds."""

ERROR_CHARACTERS = 300
"""Longest reason in an error, without the file and the place."""


@dataclass(frozen=True)
class Source:
    """A file, read once, on first use.

    Raises:
        TranscriptError: in any use, if the file cannot be read.
    """

    file: Path

    @cached_property
    def content(self) -> bytes:
        """All of it, without a byte order mark."""
        return read_content(self.file)

    @property
    def is_sqlite(self) -> bool:
        """True of a SQLite database; false of a file that is not there."""
        if not self.file.is_file():
            return False
        try:
            # Not all of it, which may be large.
            with self.file.open("rb") as file:
                return file.read(len(SQLITE)) == SQLITE
        except OSError as error:
            raise unreadable(self.file, error) from None

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Open the SQLite database read-only; it belongs to another program.

        Raises:
            TranscriptError: it cannot be read, here or within the ``with`` block.
        """
        end = time.monotonic() + MAX_READING_S
        try:
            with closing(_connected(self.file)) as connection:
                connection.row_factory = sqlite3.Row
                # It also lets Python see Ctrl-C while SQLite works.
                connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
                yield connection
        # Names of columns are decoded by Python, and texts by SQLite.
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            if isinstance(error, sqlite3.OperationalError) and str(error) == "interrupted":
                if time.monotonic() <= end:
                    # SQLite swallows what is raised within its handler.
                    raise KeyboardInterrupt from None
                self.refuse("the database", f"is not read within {MAX_READING_S:.0f} s")
            self.refuse("the database", f"cannot be read: {error}")

    @cached_property
    def first(self) -> Any:
        """The first line's JSON value, or that of the whole file; ``None`` if neither is JSON."""
        for raw in (self._first_line, self.content):
            try:
                return decode(raw)
            except ValueError:
                continue
        return None

    @property
    def sample(self) -> Any:
        """The first JSON value, or the first item of an array there."""
        return self.first[0] if isinstance(self.first, list) and self.first else self.first

    @property
    def _first_line(self) -> bytes:
        return self.content.lstrip().partition(b"\n")[0]

    def whole(self) -> Any:
        """Return the file as one JSON value.

        Raises:
            TranscriptError: it is not one.
        """
        with self.placed("the file"):
            return decode(self.content)

    def records(self) -> Iterator[tuple[int, Any]]:
        """Yield the JSON value of each line that is not blank, with the line's number from 1.

        Raises:
            TranscriptError: names the line that is not JSON.
        """
        for number, line in numbered_lines(self.content):
            with self.placed(f"line {number}"):
                value = decode(line)
            yield number, value

    def values(self) -> Iterator[tuple[str, Any]]:
        """Yield the JSON values with their places: one a line, or the file as a whole.

        Raises:
            TranscriptError: names the place of what is not JSON.
        """
        try:
            decode(self._first_line)
        except ValueError:
            # A value that goes on after its first line.
            if self._first_line.rstrip().endswith((b"[", b"{", b",")):
                yield "the file", self.whole()
                return
        for number, value in self.records():
            yield f"line {number}", value

    def objects(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the objects with their places: one a line, one alone, or those of an array.

        Raises:
            TranscriptError: names the place of a value that is no object.
        """
        for where, value in self.values():
            each = [(where, value)]
            if isinstance(value, list):
                each = [(f"{where}, item {at}", it) for at, it in enumerate(value, start=1)]
            for place, item in each:
                yield place, self._object(place, item)

    def items(
        self, where: str, field: str, value: Any, noun: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the objects of the array ``value``, each with its place: ``where, noun number``.

        Raises:
            TranscriptError: ``value`` is empty or no array, or an item is no object.
        """
        if not isinstance(value, list) or not value:
            found = "none" if value == [] else kind_of(value)
            self.refuse(where, f"'{field}': expected an array of {noun}s, got {found}")
        for at, item in enumerate(value, start=1):
            place = f"{where}, {noun} {at}"
            yield place, self._object(place, item)

    def _object(self, where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.refuse(where, f"expected an object, got {kind_of(value)}")
        return value

    def read_each(
        self, records: Iterable[tuple[str, T]], read: Callable[[str, str, T], Found]
    ) -> Iterator[Found]:
        """Yield what ``read(number, place, record)`` makes of each record that is valid.

        One that ``read`` refuses is left out. Numbers are from 1, without those.

        Raises:
            TranscriptError: none is valid: the error of the first.
        """
        number, first = 1, None
        for where, record in records:
            try:
                found = read(str(number), where, record)
            except TranscriptError as error:
                first = first or error
                continue
            number += 1
            yield found
        if number == 1 and first is not None:
            raise first

    def refuse(self, where: str, why: object) -> NoReturn:
        """Raise a ``TranscriptError`` that names the file, the place in it, and the reason."""
        raise TranscriptError(f"{self.file}, {where}: {printable(str(why))}") from None

    @contextmanager
    def placed(self, where: str) -> Iterator[None]:
        """Raise a ``TranscriptError`` that names ``where`` for a ``ValueError`` within."""
        try:
            yield
        except RecursionError:
            self.refuse(where, "is nested too deeply")
        except ValueError as error:
            self.refuse(where, shortened(str(error), ERROR_CHARACTERS, tail=100))


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


def kind_of(value: Any) -> str:
    """Return JSON's word for the type of ``value``, with its article."""
    names = {
        dict: "an object",
        list: "an array",
        str: "text",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def first_text(*values: Any) -> str:
    """Return the first of ``values`` that is text and not empty, or empty text."""
    return next((it for it in values if isinstance(it, str) and it), "")


def listed(value: Any) -> list[Any]:
    """Return ``value`` if it is an array, else an empty one."""
    return value if isinstance(value, list) else []
