"""LangChain: ``messages_to_dict`` and ``dumpd``, a list in one file or one message a line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers.reading import Reading
from mindscore.readers.source import Source, kind_of

ROLES = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
}


class LangChainReader:
    """Reads messages of ``langchain_core``; a line that is a list is a conversation of its own."""

    def detects(self, source: Source) -> bool:
        """Whether it begins with a message of LangChain's, or a list of them."""
        first = source.sample
        # A list of lists: a conversation each.
        first = first[0] if isinstance(first, list) and first else first
        if not isinstance(first, dict):
            return False
        dumped = "lc" in first and isinstance(first.get("kwargs"), dict)
        return dumped or (isinstance(first.get("data"), dict) and "type" in first)

    def read(self, source: Source) -> list[Conversation]:
        """The file's conversations, called by their numbers.

        Raises:
            TranscriptError: names the place of the first message that is none.
        """
        alone: list[tuple[str, Any]] = []
        lists: list[list[tuple[str, Any]]] = []
        for where, value in source.values():
            if not isinstance(value, list):
                alone.append((where, value))
            elif value and all(isinstance(it, list) for it in value):
                each = enumerate(value, start=1)
                lists += [_numbered(source, f"{where}, list {at}", it) for at, it in each]
            else:
                lists.append(_numbered(source, where, value))
        found = [alone, *lists] if alone else lists
        return [_conversation(source, it, number) for number, it in enumerate(found, start=1)]


def _numbered(source: Source, where: str, messages: list[Any]) -> list[tuple[str, Any]]:
    if not messages:
        source.refuse(where, "expected an array of messages, got none")
    return [(f"{where}, message {at}", it) for at, it in enumerate(messages, start=1)]


def _conversation(source: Source, messages: Iterable[tuple[str, Any]], number: int) -> Conversation:
    reading = Reading(source)
    for where, message in messages:
        with reading.placed(where):
            fields = _fields(message)
            if fields.pop("invalid_tool_calls"):
                reading.leave_out("tool calls that are not valid")
        reading.add(where, fields)
    return reading.conversation(str(number))


def _fields(message: Any) -> dict[str, Any]:
    """A message in the shape of ``chat.completions``."""
    if not isinstance(message, dict):
        raise ValueError(f"expected an object, got {kind_of(message)}")
    if "lc" in message:
        path, data = message.get("id"), message.get("kwargs")
        kind = path[-1] if isinstance(path, list) and path else None
    else:
        kind, data = message.get("type"), message.get("data")
    if not isinstance(kind, str):
        raise ValueError(f"the message's type: expected text, got {kind_of(kind)}")
    if not isinstance(data, dict):
        raise ValueError(f"the message's fields: expected an object, got {kind_of(data)}")
    # The class and the short name, and those of a message that was streamed.
    short = kind.removesuffix("Chunk").removesuffix("Message").lower()
    role = data.get("role") if short == "chat" else ROLES.get(short)
    if role is None:
        raise ValueError(f"the message's type: expected one of {', '.join(ROLES)}, got {kind!r}")
    return {
        "role": role,
        "content": data.get("content"),
        "id": data.get("id"),
        "tool_calls": data.get("tool_calls"),
        "invalid_tool_calls": data.get("invalid_tool_calls"),
    }
