"""Gather the messages of one conversation from records of any format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mindhooks import Role
from mindscore._util.errors import TranscriptError
from mindscore.conversation.chat import LeftOut, read_messages
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message
from mindscore.conversation.native import parse_timestamp
from mindscore.readers.source import Source, kind_of

NO_SYSTEM = (
    "the file records no system prompt: where there was one, the scores are of a reconstructed "
    "context"
)
NO_TOOLS = (
    "the file does not record the definitions of the tools: the scores are of a reconstructed "
    "context"
)


class Reading:
    """The messages of one conversation as they are read, and remarks about them."""

    def __init__(self, source: Source) -> None:
        self.messages: list[Message] = []
        self.remarks: list[str] = []
        self._source = source
        self._left_out = LeftOut()

    def leave_out(self, what: str) -> None:
        """Count one thing that the conversation goes without, for a remark."""
        self._left_out.add(what)

    def add(self, where: str, fields: Mapping[str, Any], *, timestamp: Any = None) -> None:
        """Add what one message of a chat API says; ``timestamp`` is ISO 8601 or nothing.

        It is in the shape of OpenAI's, Anthropic's, Gemini's, Vercel's or LangChain's. What is not
        understood, or cannot be scored, is left out, and counted.

        Raises:
            TranscriptError: it is not such a message; the text names the place.
        """
        with self.placed(where):
            try:
                messages = read_messages(fields, self.leave_out)
            except TranscriptError as error:
                raise ValueError(str(error)) from None
            when = _timestamp_ns(timestamp)
            self.messages += [replace(it, timestamp_ns=when) for it in messages]

    def add_memory(self, where: str, key: str, text: str, *, timestamp: Any = None) -> None:
        """Add a message that is a memory.

        Raises:
            TranscriptError: its timestamp is not valid.
        """
        with self.placed(where):
            when = _timestamp_ns(timestamp)
            self.messages.append(Message(Role.MEMORY, text, memory_key=key, timestamp_ns=when))

    @contextmanager
    def leaving_out(self, where: str) -> Iterator[None]:
        """Leave out the record at ``where`` if it is not valid; a remark says why."""
        with self._source.leaving_out(), self.placed(where):
            yield

    def require_messages(self) -> None:
        """Refuse a file of which no message was read.

        Raises:
            TranscriptError: gives the reason of the first record that was left out, if one was.
        """
        if not self.messages:
            self._source.refuse_empty("holds no messages")

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
        tools: Any = None,
        id_: str = "",
    ) -> Conversation:
        """Return all of it, with ``remarks``, those gathered, and one on what was left out.

        Without ``remarks``, the usual ones say if the system prompt or the definitions of tools
        are not in the file. ``tools`` are those definitions, OpenAI's or Anthropic's, if it records
        them; ``id_`` is the conversation's id, if it records one.
        """
        given = _given_tools(tools)
        defined = tool_definitions(given)
        for _ in range(len(given) - len(defined)):
            self.leave_out("definitions of tools")
        all_remarks = [
            *(self._usual(bool(given)) if remarks is None else remarks),
            *self.remarks,
        ]
        all_remarks += self._left_out.remarks()
        messages = tuple(self.messages)
        return Conversation(name, messages, title, memories or {}, tuple(all_remarks), id_, defined)

    def _usual(self, has_tools: bool) -> list[str]:
        remarks = []
        if not any(message.role == Role.SYSTEM for message in self.messages):
            remarks.append(NO_SYSTEM)
        calls = any(it.tool_calls or it.role == Role.TOOL for it in self.messages)
        if calls and not has_tools:
            remarks.append(NO_TOOLS)
        return remarks


def _timestamp_ns(timestamp: Any) -> int | None:
    if timestamp is None:
        return None
    if not isinstance(timestamp, str):
        raise ValueError(f"'timestamp': expected text, got {kind_of(timestamp)}")
    return parse_timestamp(timestamp)


def iso_time(seconds: Any) -> str | None:
    """Return seconds since 1970 as ISO 8601, or ``None`` where they are no time."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OSError, OverflowError, ValueError):
        return None


def tool_call(name: Any, arguments: Any) -> dict[str, Any]:
    """Return a tool call in the shape of ``chat.completions``; ``arguments`` are any JSON value."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"type": "function", "function": {"name": name, "arguments": text}}


def _given_tools(given: Any) -> list[Any]:
    """Return what a file records as tools: an array, its JSON text, or a single thing."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (RecursionError, ValueError):
            return [given] if given.strip() else []
    if isinstance(given, list):
        return given
    return [given] if given else []


def tool_definitions(given: Any) -> tuple[dict[str, Any], ...]:
    """Return the definitions of tools in OpenAI's form; what is none is passed over.

    ``given`` is an array, or its JSON text, of OpenAI's, Anthropic's or plain ones.
    """
    found = []
    for it in _given_tools(given):
        function = it.get("function", it) if isinstance(it, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            schema = function.get("parameters", function.get("input_schema", {}))
            rest = {key: function[key] for key in ("description", "strict") if key in function}
            definition = {"name": function["name"], **rest, "parameters": schema}
            found.append({"type": "function", "function": definition})
    return tuple(found)
