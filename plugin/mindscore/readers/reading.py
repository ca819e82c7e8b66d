"""The messages of one conversation, as several formats record them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import msgspec

from mindscore.chat.conversation import Conversation
from mindscore.chat.message import ChatMessage, from_openai
from mindscore.errors import TranscriptError
from mindscore.readers.source import Source
from mindscore.text import shortened
from mindscore.transcripts.timestamps import parse_timestamp

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
        self.messages: list[ChatMessage] = []
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
                ChatMessage("memory", text, memory_key=key, timestamp_ns=stamp(timestamp))
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


def _message(fields: Mapping[str, Any]) -> ChatMessage:
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
