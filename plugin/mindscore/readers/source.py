"""Files of conversations: their bytes, their JSON, and the place of an error in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from mindscore._util.encodings import is_compressed, without_lone_surrogates
from mindscore._util.errors import TranscriptError
from mindscore._util.files import (
    STANDARD_INPUT,
    decode_repaired,
    numbered_lines,
    read_content,
    unreadable,
)
from mindscore._util.text import printable, shortened
from mindscore.readers.arrays import PEEKED, is_array, items, peek
from mindscore.readers.damage import FileDamage
from mindscore.readers.database import SQLITE, opened
from mindscore.readers.selected import Selected

T = TypeVar("T")
Found = TypeVar("Found")

ERROR_CHARACTERS = 300
"""Longest reason in an error, without the file and the place."""

_GOES_ON = (b"[", b"{", b",", b":")
"""Ends of a first line that is not the whole of a value."""


@dataclass(frozen=True)
class Source:
    """A file, standard input (``-``), or ``given`` bytes in its place; read once, on first use.

    A record that is not valid is left out and counted in ``damage``; ``Conversations`` says so.

    Raises:
        TranscriptError: in any use, if the file cannot be read.
    """

    file: Path
    given: bytes | None = None
    damage: FileDamage = field(default_factory=FileDamage, compare=False, repr=False)
    selected: Selected = field(default_factory=Selected, compare=False, repr=False)

    @cached_property
    def content(self) -> bytes:
        """All of it in UTF-8, decompressed, without a byte order mark."""
        return read_content(self.file) if self.given is None else self.given

    @property
    def is_sqlite(self) -> bool:
        """True of a SQLite database; false of a file that is not there."""
        begin = self.content if self._is_held else self._begin
        return begin.startswith(SQLITE)

    @cached_property
    def _begin(self) -> bytes:
        """The first bytes: not all of a file, which may be large."""
        if self.given is not None:
            return self.given[: len(SQLITE)]
        if not self.file.is_file():
            return b""
        try:
            with self.file.open("rb") as file:
                return file.read(len(SQLITE))
        except OSError as error:
            raise unreadable(self.file, error) from None

    @property
    def _is_held(self) -> bool:
        """True if the content is at hand only here: decompressed, or from standard input."""
        return self.file == STANDARD_INPUT or is_compressed(self._begin)

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Open the SQLite database read-only; it belongs to another program.

        Raises:
            TranscriptError: it cannot be read, here or within the ``with`` block.
        """
        held = self.content if self._is_held else None
        try:
            with opened(self.file, held) as connection:
                yield connection
        except TimeoutError as error:
            self.refuse("the database", error)
        # Names of columns are decoded by Python, and texts by SQLite.
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            self.refuse("the database", f"cannot be read: {error}")

    @cached_property
    def first(self) -> Any:
        """The first JSON value: that of the first line, or of the whole file; or ``None``.

        Of an array, it holds no more than the first items.
        """
        if self._is_whole:
            return peek(self.content)
        for at, value in enumerate(islice(self.peek_lines(), PEEKED)):
            # A first line may be broken; one that is found later has to look like a record.
            if value is not None and (at == 0 or isinstance(value, dict)):
                return value
        return None

    def peek_lines(self) -> Iterator[Any]:
        """Yield the JSON value of each line that is not blank, ``None`` where there is none.

        No damage is counted, and of arrays only the first items are decoded.
        """
        for _, line in numbered_lines(self.content):
            yield peek(line.strip(b"\0"))

    @property
    def sample(self) -> Any:
        """The first JSON value, or the first item of an array there."""
        return self.first[0] if isinstance(self.first, list) and self.first else self.first

    @cached_property
    def _is_whole(self) -> bool:
        """True if the file is one value of several lines, rather than a value a line."""
        lines = [it for _, it in islice(numbered_lines(self.content), PEEKED)]
        line, others = lines[0] if lines else b"", lines[1:]
        if is_array(line):
            return not line.rstrip().endswith(b"]")
        if not others or not line.rstrip().endswith(_GOES_ON):
            return False
        # Or a line that was cut off, before others.
        return not any(isinstance(peek(it), dict) for it in others)

    def whole(self) -> Any:
        """Return the file as one JSON value.

        Raises:
            TranscriptError: it is not one.
        """
        return self._value("the file", self.content)

    def _value(self, where: str, raw: bytes) -> Any:
        with self.placed(where):
            value, replaced = decode_repaired(raw)
        self.damage.replace(replaced)
        return value

    def records(self) -> Iterator[tuple[int, Any]]:
        """Yield the JSON value of each line that is not blank, with the line's number from 1.

        A line that is not JSON is left out.
        """
        for number, line in self._lines():
            with self.leaving_out():
                yield number, self._value(f"line {number}", line)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        for number, line in numbered_lines(self.content):
            # A crash leaves them where it lost what was written.
            if b"\0" in line:
                self.leave_out(f"line {number}", f"holds {line.count(0):,} NUL bytes")
                line = line.strip(b"\0 \t\r\n")
            if line:
                yield number, line

    def values(self) -> Iterator[tuple[str, Any]]:
        """Yield the JSON values with their places: one a line, or the file as a whole.

        A line, or an item of an array that is the whole file, is left out if it is not JSON.

        Raises:
            TranscriptError: the file is one value, and not JSON.
        """
        if not self._is_whole:
            for number, value in self.records():
                yield f"line {number}", value
        elif isinstance(self.first, list):
            yield "the file", [item for _, item in self._array("the file", self.content)]
        else:
            yield "the file", self.whole()

    def objects(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the objects with their places: one a line, one alone, or those of an array.

        A value that is no object is left out. Items of arrays are read one by one.

        Raises:
            TranscriptError: the file is one value, and not JSON.
        """
        for where, value in self._each():
            if isinstance(value, dict):
                yield where, value
            else:
                with self.leaving_out():
                    self._object(where, value)

    def _each(self) -> Iterator[tuple[str, Any]]:
        if self._is_whole:
            if isinstance(self.first, list):
                yield from self._array("the file", self.content)
            else:
                yield "the file", self.whole()
            return
        for number, line in self._lines():
            where = f"line {number}"
            if is_array(line):
                yield from self._array(where, line)
                continue
            with self.leaving_out():
                yield where, self._value(where, line)

    def _array(self, where: str, raw: bytes) -> Iterator[tuple[str, Any]]:
        """Yield the items of an array, up to the first that is not JSON."""
        try:
            split = msgspec.json.decode(raw, type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield from self._items_before_damage(where, raw)
            return
        for at, item in enumerate(split, start=1):
            place = f"{where}, item {at}"
            with self.leaving_out():
                yield place, self._value(place, bytes(item))

    def _items_before_damage(self, where: str, raw: bytes) -> Iterator[tuple[str, Any]]:
        raw, number = without_lone_surrogates(raw)
        self.damage.replace(number)
        at = 0
        try:
            for at, item in enumerate(items(raw), start=1):
                yield f"{where}, item {at}", item
        except (RecursionError, ValueError) as error:
            self.leave_out(f"{where}, item {at + 1} and what follows", f"is not JSON: {error}")

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

    @contextmanager
    def leaving_out(self) -> Iterator[None]:
        """Leave out what the block refuses: count it, with its place and the reason."""
        try:
            yield
        except TranscriptError as error:
            self.damage.leave_out(str(error).removeprefix(f"{self.file}, "), error)

    def leave_out(self, where: str, why: object) -> None:
        """Count a record that is left out, with its place and the reason."""
        with self.leaving_out():
            self.refuse(where, why)

    def read_each(
        self,
        records: Iterable[tuple[str, T]],
        read: Callable[[str, str, T], Found],
        name: Callable[[T], str] | None = None,
    ) -> Iterator[Found]:
        """Yield what ``read(number, place, record)`` makes of each record that is valid.

        One that ``read`` refuses is left out. Numbers are from 1, without those. What is not
        ``selected`` is not read: by its ``name``, which is its ``id`` if nothing else is given, and
        empty for those named by number.
        """
        number = 1
        for where, record in records:
            if not self.selected.may_be(number, (name or own_name)(record)):
                continue
            found: list[Found] = []
            with self.leaving_out():
                found.append(read(str(number), where, record))
            number += len(found)
            yield from found

    def refuse_empty(self, why: str) -> NoReturn:
        """Raise the error of the first record that was left out, else one that says ``why``."""
        if self.damage.first is not None:
            raise self.damage.first
        raise TranscriptError(f"{self.file}: {why}")

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


def own_name(record: Any) -> str:
    """Return the ``id`` of a record, if it has one."""
    return first_text(record.get("id")) if isinstance(record, dict) else ""


def kind_of(value: Any) -> str:
    """Return JSON's word for the type of ``value``, with its article."""
    words = {dict: "an object", list: "an array", str: "text", bool: "a boolean"}
    return "null" if value is None else words.get(type(value), "a number")


def first_text(*values: Any) -> str:
    """Return the first of ``values`` that is text and not empty, or empty text."""
    return next((it for it in values if isinstance(it, str) and it), "")


def listed(value: Any) -> list[Any]:
    """Return ``value`` if it is an array, else an empty one."""
    return value if isinstance(value, list) else []
