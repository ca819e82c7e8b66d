"""A file that may hold conversations, and what reads one format of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Protocol

import msgspec

from mindscore.chat.conversation import Conversation
from mindscore.errors import TranscriptError
from mindscore.text import printable

SQLITE = b"SQLite format 3\x00"


@dataclass(frozen=True)
class Source:
    """A file, read once.

    Raises:
        TranscriptError: on first use, where it cannot be read.
    """

    file: Path

    @cached_property
    def content(self) -> bytes:
        """All of it, without a byte order mark."""
        try:
            return self.file.read_bytes().removeprefix(b"\xef\xbb\xbf")
        except OSError as error:
            raise TranscriptError(
                f"{self.file}: cannot be read: {error.strerror or error}"
            ) from None

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a SQLite database."""
        if not self.file.is_file():
            return False
        try:
            # Not all of it, which may be large.
            with self.file.open("rb") as file:
                return file.read(len(SQLITE)) == SQLITE
        except OSError as error:
            raise TranscriptError(
                f"{self.file}: cannot be read: {error.strerror or error}"
            ) from None

    def records(self) -> Iterator[tuple[int, Any]]:
        """The JSON value of each line that is not empty, with the line's number from 1.

        Raises:
            TranscriptError: names the line that is not JSON.
        """
        for number, line in enumerate(self.content.split(b"\n"), start=1):
            if line.strip():
                yield number, self.decode(line, f"line {number}")

    @cached_property
    def first(self) -> Any:
        """The first line's value, or that of the whole file; ``None`` where neither is JSON."""
        for raw in (self.content.lstrip().partition(b"\n")[0], self.content):
            try:
                return msgspec.json.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
        return None

    def whole(self) -> Any:
        """The file as one JSON value.

        Raises:
            TranscriptError: it is none.
        """
        return self.decode(self.content, "the file")

    def decode(self, raw: bytes, where: str) -> Any:
        """The JSON value in ``raw``; ``where`` says what that is."""
        try:
            return msgspec.json.decode(raw)
        except UnicodeDecodeError:
            self.refuse(where, "is not UTF-8")
        except RecursionError:
            self.refuse(where, "is nested too deeply")
        except msgspec.DecodeError as error:
            self.refuse(where, f"is not valid JSON: {error}")

    def refuse(self, where: str, why: object) -> NoReturn:
        """Raise a ``TranscriptError`` that names the file, the place in it, and the reason."""
        raise TranscriptError(f"{self.file}, {where}: {printable(str(why))}") from None


class Reader(Protocol):
    """Reads one format. ``name`` is what ``--format`` calls it."""

    name: str

    def detects(self, source: Source) -> bool:
        """Whether the file is of this format, by its shape and not by its name."""

    def read(self, source: Source) -> list[Conversation]:
        """The file's conversations, in its order.

        What the format does not record is in each one's ``remarks``, in words for an operator.

        Raises:
            TranscriptError: names the file, the record's place and the reason.
        """
