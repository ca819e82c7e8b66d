"""Files of conversations, and how their records are read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Protocol

import msgspec

from mindhooks import Role
from mindscore._util.errors import TranscriptError
from mindscore._util.text import printable, shortened
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message, from_openai
from mindscore.conversation.native import parse_timestamp

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


TEXTS = ("text", "input_text", "output_text")
IMAGES = ("image", "image_url", "input_image")
CALLS = ("tool_use", "tool_call", "function_call", "tool_call_chunk", "input_json_delta")
"""Parts that say what a response asked of tools, which the response says elsewhere too."""

NAMED = 10
"""As many kinds of what was left out are named."""

NO_SYSTEM = (
    "the file records no system prompt: where there was one, the scores are of a reconstructed "
    "context"
)
NO_TOOLS = (
    "the file does not record the definitions of the tools: the scores are of a reconstructed "
    "context"
)
TOOLS_UNUSED = "the definitions of the tools, which the file records, are not part of the prompt"


def values(source: Source) -> Iterator[tuple[str, Any]]:
    """The JSON values of a file, each with its place: of each line, or of the file as a whole.

    Raises:
        TranscriptError: names the place of what is not JSON.
    """
    first = source.content.lstrip().partition(b"\n")[0]
    try:
        msgspec.json.decode(first)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # A value that goes on after its first line.
        if first.rstrip().endswith((b"[", b"{", b",")):
            yield "the file", source.whole()
            return
    for number, value in source.records():
        yield f"line {number}", value


def objects(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file, each with its place: one a line, one alone, or those of one array.

    Raises:
        TranscriptError: names the place of what is none.
    """
    for where, value in values(source):
        each = [(where, value)]
        if isinstance(value, list):
            each = [(f"{where}, item {at}", it) for at, it in enumerate(value, start=1)]
        for place, item in each:
            if not isinstance(item, dict):
                source.refuse(place, f"expected an object, got {kind_of(item)}")
            yield place, item


def sample(source: Source) -> Any:
    """What a file begins with: its first line's value, or the first item of an array there."""
    first = source.first
    return first[0] if isinstance(first, list) and first else first


def kind_of(value: Any) -> str:
    """What JSON calls the type of ``value``."""
    names = {
        dict: "an object",
        list: "an array",
        str: "text",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number")


@contextmanager
def placed(source: Source, where: str) -> Iterator[None]:
    """Say of a ``ValueError`` within that it is at ``where`` in the file.

    Raises:
        TranscriptError: in its place.
    """
    try:
        yield
    except RecursionError:
        source.refuse(where, "is nested too deeply")
    except ValueError as error:
        source.refuse(where, shortened(str(error), 300, tail=100))


class Reading:
    """Gathers the messages of one conversation, and what has to be said about them."""

    def __init__(self, source: Source) -> None:
        self.messages: list[Message] = []
        self.remarks: list[str] = []
        self._source = source
        self._left_out: Counter[str] = Counter()

    def leave_out(self, what: str) -> None:
        """Count one thing that the conversation goes without."""
        self._left_out[what] += 1

    def add(self, where: str, fields: Mapping[str, Any], *, timestamp: Any = None) -> None:
        """Add a message in the shape of ``chat.completions``; ``timestamp`` is ISO 8601 or nothing.

        Images that the file holds go with it, under any of the shapes in use; parts of other types
        than text are left out, and said to be.

        Raises:
            TranscriptError: it is none; the text names the place.
        """
        for name in ("reasoning_content", "reasoning"):
            if fields.get(name):
                self.leave_out("reasoning")
        with self.placed(where):
            message = _message({**fields, "content": self._kept(fields.get("content"))})
            self.messages.append(replace(message, timestamp_ns=stamp(timestamp)))

    def add_memory(self, where: str, key: str, text: str, *, timestamp: Any = None) -> None:
        """Add a message that is a memory.

        Raises:
            TranscriptError: its timestamp is none.
        """
        with self.placed(where):
            self.messages.append(
                Message(Role.MEMORY, text, memory_key=key, timestamp_ns=stamp(timestamp))
            )

    def placed(self, where: str) -> AbstractContextManager[None]:
        """Say of a ``ValueError`` within that it is at ``where``."""
        return placed(self._source, where)

    def conversation(
        self,
        name: str,
        *,
        memories: Mapping[str, str] | None = None,
        tools_recorded: bool = False,
    ) -> Conversation:
        """All of it, and what the file does not say of it."""
        remarks = []
        if not any(message.role == "system" for message in self.messages):
            remarks.append(NO_SYSTEM)
        if tools_recorded:
            remarks.append(TOOLS_UNUSED)
        elif any(message.tool_calls or message.role == "tool" for message in self.messages):
            remarks.append(NO_TOOLS)
        return self.told(name, remarks, memories=memories)

    def told(
        self,
        name: str,
        remarks: Iterable[str],
        *,
        title: str = "",
        memories: Mapping[str, str] | None = None,
    ) -> Conversation:
        """All of it, with ``remarks`` and what was left out."""
        said = [*remarks, *self.remarks]
        named = [
            f"{shortened(what, 60)} ({number:,})"
            for what, number in self._left_out.most_common(NAMED)
        ]
        if len(self._left_out) > NAMED:
            named.append(f"{len(self._left_out) - NAMED:,} more kinds")
        if named:
            said.append(f"left out: {', '.join(named)}")
        return Conversation(name, tuple(self.messages), title, memories or {}, tuple(said))

    def _kept(self, content: Any) -> Any:
        if not isinstance(content, list):
            return content
        kept = (self._part(part) for part in content)
        return [part for part in kept if part is not None]

    def _part(self, part: Any) -> Any:
        """A part as ``chat.completions`` has it; ``None``: it is left out."""
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind in TEXTS:
            return part
        if kind == "refusal":
            return {"type": "text", "text": part.get("refusal")}
        if kind in CALLS:
            return None
        address = data_address(part) if kind in IMAGES else None
        if address is not None:
            return {"type": "image_url", "image_url": address}
        self.leave_out("images that the file only names" if kind in IMAGES else kind)
        return None


def _message(fields: Mapping[str, Any]) -> Message:
    try:
        return from_openai(fields)
    except TranscriptError as error:
        raise ValueError(str(error)) from None


def data_address(part: Mapping[str, Any]) -> str | None:
    """The ``data:`` address of an image part that holds its image."""
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    if isinstance(url, str):
        return url if url.startswith("data:") else None
    source = part.get("source")
    held: Mapping[str, Any] = source if isinstance(source, dict) else part
    mime = held.get("media_type", held.get("mime_type"))
    data = held.get("base64", held.get("data"))
    if isinstance(mime, str) and isinstance(data, str):
        return f"data:{mime};base64,{data}"
    return None


def stamp(timestamp: Any) -> int | None:
    """Nanoseconds since the epoch of an ISO 8601 timestamp, where there is one.

    Raises:
        ValueError: it is none.
    """
    if timestamp is None:
        return None
    if not isinstance(timestamp, str):
        raise ValueError(f"'timestamp': expected text, got {kind_of(timestamp)}")
    return parse_timestamp(timestamp)


def tool_call(name: Any, arguments: Any) -> dict[str, Any]:
    """A tool call in the shape of ``chat.completions``, of arguments as a JSON value."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", "function": {"name": name, "arguments": text}}
