"""LangChain's messages: as objects, and in files, as every way of dumping them writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mindscore._util.errors import TranscriptError
from mindscore.conversation.chat import read_messages
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message
from mindscore.readers import Reading, Source, kind_of

ROLES = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
}
NO_MESSAGES = ("remove",)
"""Types that say nothing to the model: this one tells LangGraph to take a message back."""


class LangChainReader:
    """Reads messages of ``langchain_core``: one a line, or lists, each a conversation.

    They are as ``messages_to_dict``, ``model_dump`` or ``dumpd`` write them.
    """

    def detects(self, source: Source) -> bool:
        """Say whether it begins with a message of LangChain's, or a list of them."""
        first = source.sample
        # A list of lists: a conversation each.
        first = first[0] if isinstance(first, list) and first else first
        if not isinstance(first, dict):
            return False
        if "lc" in first:
            return isinstance(first.get("kwargs"), dict)
        if not isinstance(first.get("type"), str) or _short(first["type"]) not in (*ROLES, "chat"):
            return False
        return isinstance(first.get("data"), dict) or {"content", "additional_kwargs"} <= set(first)

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the file's conversations, named by their numbers.

        Raises:
            TranscriptError: no message is valid; the text names the first's place.
        """

        def conversation(number: str, where: str, messages: list[Any]) -> Conversation:
            return _conversation(source, number, where, messages)

        if isinstance(source.first, dict) and "messages" not in source.first.get("kwargs", {}):
            return iter([_log(source)])
        return source.read_each(_lists(source), conversation)


def _lists(source: Source) -> Iterator[tuple[str, list[Any]]]:
    for where, value in source.values():
        held = value.get("kwargs") if isinstance(value, dict) else None
        if isinstance(held, dict):
            # A prompt that was dumped as a whole.
            value = held.get("messages")
        if isinstance(value, list) and value and all(isinstance(it, list) for it in value):
            for at, it in enumerate(value, start=1):
                yield f"{where}, list {at}", it
        elif isinstance(value, list):
            yield where, value
        else:
            source.leave_out(where, f"expected an array of messages, got {kind_of(value)}")


def _conversation(source: Source, number: str, where: str, messages: list[Any]) -> Conversation:
    if not messages:
        source.refuse(where, "expected an array of messages, got none")
    reading = Reading(source)
    for at, message in enumerate(messages, start=1):
        _add(reading, f"{where}, message {at}", message)
    return reading.conversation(number)


def _log(source: Source) -> Conversation:
    """Return the one conversation of a file with a message a line."""
    reading = Reading(source)
    for number, message in source.records():
        with source.leaving_out():
            _add(reading, f"line {number}", message)
    if not reading.messages:
        source.refuse_empty("holds no messages")
    return reading.conversation("1")


def _add(reading: Reading, where: str, message: Any) -> None:
    with reading.placed(where):
        kind, data = _kind_and_fields(message)
        if kind in NO_MESSAGES:
            reading.leave_out(f"messages of type {kind}")
            return
        fields = _chat_fields(kind, data)
    for _ in data.get("invalid_tool_calls") or ():
        reading.leave_out("tool calls that are not valid")
    reading.add(where, fields)


def _kind_and_fields(message: Any) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(message, dict):
        raise ValueError(f"expected an object, got {kind_of(message)}")
    if "lc" in message:
        path, data = message.get("id"), message.get("kwargs")
        kind = path[-1] if isinstance(path, list) and path else None
    else:
        kind, data = message.get("type"), message.get("data", message)
    if not isinstance(kind, str):
        raise ValueError(f"the message's type: expected text, got {kind_of(kind)}")
    if not isinstance(data, dict):
        raise ValueError(f"the message's fields: expected an object, got {kind_of(data)}")
    return _short(kind), data


def _short(kind: str) -> str:
    """Return the short name of a type; a message has that, or a class, or that of a stream."""
    return kind.removesuffix("Chunk").removesuffix("Message").lower()


def _chat_fields(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a message in the shape of ``chat.completions``."""
    role = data.get("role") if kind == "chat" else ROLES.get(kind)
    if role is None:
        known = ", ".join((*ROLES, "chat"))
        raise ValueError(f"the message's type: expected one of {known}, got {kind!r}")
    extra = data.get("additional_kwargs")
    extra = extra if isinstance(extra, dict) else {}
    kept = ("content", "id", "tool_calls", "additional_kwargs", "tool_call_id", "name")
    fields = {key: extra.get(key) for key in ("reasoning_content", "refusal")}
    return {**fields, **{key: data.get(key) for key in kept}, "role": role}


def chat_messages(message: Any) -> list[Message]:
    """Return what a ``BaseMessage`` says: several messages if it holds the results of tools.

    Raises:
        TranscriptError: its type is not known, or its content is no message's.
    """
    names = ("role", "content", "id", "tool_calls", "additional_kwargs", "tool_call_id", "name")
    data = {name: getattr(message, name, None) for name in names}
    try:
        return read_messages(_chat_fields(_short(message.type), data), lambda _: None)
    except ValueError as error:
        raise TranscriptError(str(error)) from None
