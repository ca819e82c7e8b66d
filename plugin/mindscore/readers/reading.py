"""Gather the messages of one conversation from records of any format."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from mindhooks import Role
from mindscore._util.errors import TranscriptError
from mindscore._util.text import shortened
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message, from_openai
from mindscore.conversation.native import parse_timestamp
from mindscore.readers.source import Source, kind_of

TEXTS = ("text", "input_text", "output_text")
IMAGES = ("image", "image_url", "input_image")
CALLS = ("tool_use", "tool_call", "function_call", "tool_call_chunk", "input_json_delta")
"""Types of parts that repeat a response's tool calls, which it holds elsewhere too."""

NAMED_KINDS = 10
"""Most kinds of omitted parts that a remark names."""

NO_SYSTEM = (
    "the file records no system prompt: where there was one, the scores are of a reconstructed "
    "context"
)
NO_TOOLS = (
    "the file does not record the definitions of the tools: the scores are of a reconstructed "
    "context"
)
TOOLS_UNUSED = "the definitions of the tools, which the file records, are not part of the prompt"


class Reading:
    """The messages of one conversation as they are read, and remarks about them."""

    def __init__(self, source: Source) -> None:
        self.messages: list[Message] = []
        self.remarks: list[str] = []
        self._source = source
        self._left_out: Counter[str] = Counter()

    def leave_out(self, what: str) -> None:
        """Count one thing that the conversation goes without, for a remark."""
        self._left_out[what] += 1

    def add(self, where: str, fields: Mapping[str, Any], *, timestamp: Any = None) -> None:
        """Add a message in the shape of ``chat.completions``; ``timestamp`` is ISO 8601 or nothing.

        Images that the file holds are taken in any of the shapes in use. Parts of other types than
        text and images are left out, and counted.

        Raises:
            TranscriptError: it is not such a message; the text names the place.
        """
        for name in ("reasoning_content", "reasoning"):
            if fields.get(name):
                self.leave_out("reasoning")
        with self.placed(where):
            try:
                message = from_openai({**fields, "content": self._kept(fields.get("content"))})
            except TranscriptError as error:
                raise ValueError(str(error)) from None
            self.messages.append(replace(message, timestamp_ns=_timestamp_ns(timestamp)))

    def add_memory(self, where: str, key: str, text: str, *, timestamp: Any = None) -> None:
        """Add a message that is a memory.

        Raises:
            TranscriptError: its timestamp is not valid.
        """
        with self.placed(where):
            when = _timestamp_ns(timestamp)
            self.messages.append(Message(Role.MEMORY, text, memory_key=key, timestamp_ns=when))

    def placed(self, where: str) -> AbstractContextManager[None]:
        """Raise a ``TranscriptError`` that names ``where`` for a ``ValueError`` within."""
        return self._source.placed(where)

    def conversation(
        self,
        name: str,
        remarks: Iterable[str] | None = None,
        *,
        title: str = "",
        memories: Mapping[str, str] | None = None,
        tools_recorded: bool = False,
        id_: str = "",
    ) -> Conversation:
        """Return all of it, with ``remarks``, those gathered, and one on what was left out.

        Without ``remarks``, the usual ones say if the system prompt or the definitions of tools
        (``tools_recorded``) are not in the file. ``id_`` is the conversation's id, if the file
        records one.
        """
        all_remarks = [
            *(self._usual(tools_recorded) if remarks is None else remarks),
            *self.remarks,
        ]
        omitted = [
            f"{shortened(what, 60)} ({number:,})"
            for what, number in self._left_out.most_common(NAMED_KINDS)
        ]
        if len(self._left_out) > NAMED_KINDS:
            omitted.append(f"{len(self._left_out) - NAMED_KINDS:,} more kinds")
        if omitted:
            all_remarks.append(f"left out: {', '.join(omitted)}")
        messages = tuple(self.messages)
        return Conversation(name, messages, title, memories or {}, tuple(all_remarks), id_)

    def _usual(self, tools_recorded: bool) -> list[str]:
        remarks = []
        if not any(message.role == Role.SYSTEM for message in self.messages):
            remarks.append(NO_SYSTEM)
        if tools_recorded:
            remarks.append(TOOLS_UNUSED)
        elif any(message.tool_calls or message.role == Role.TOOL for message in self.messages):
            remarks.append(NO_TOOLS)
        return remarks

    def _kept(self, content: Any) -> Any:
        if not isinstance(content, list):
            return content
        kept = (self._part(part) for part in content)
        return [part for part in kept if part is not None]

    def _part(self, part: Any) -> Any:
        """Return a part as ``chat.completions`` has it, or ``None`` if it is left out."""
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind in TEXTS:
            return part
        if kind == "refusal":
            return {"type": "text", "text": part.get("refusal")}
        if kind in CALLS:
            return None
        address = _data_address(part) if kind in IMAGES else None
        if address is not None:
            return {"type": "image_url", "image_url": address}
        self.leave_out("images that the file only names" if kind in IMAGES else kind)
        return None


def _data_address(part: Mapping[str, Any]) -> str | None:
    """Return the ``data:`` address of an image part that holds its image, else ``None``."""
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


def _timestamp_ns(timestamp: Any) -> int | None:
    if timestamp is None:
        return None
    if not isinstance(timestamp, str):
        raise ValueError(f"'timestamp': expected text, got {kind_of(timestamp)}")
    return parse_timestamp(timestamp)


def tool_call(name: Any, arguments: Any) -> dict[str, Any]:
    """Return a tool call in the shape of ``chat.completions``; ``arguments`` are any JSON value."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", "function": {"name": name, "arguments": text}}
