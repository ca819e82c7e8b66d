"""LangChain's messages: as objects, and as files of ``messages_to_dict`` and ``dumpd``."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any

from mindhooks import Image, Role
from mindscore._util.errors import TranscriptError
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message, ToolCall
from mindscore.readers import Reading, Source, kind_of

ROLES = {
    "human": Role.USER,
    "ai": Role.ASSISTANT,
    "system": Role.SYSTEM,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}


class LangChainReader:
    """Reads messages of ``langchain_core``: one a line, or lists, each a conversation."""

    def detects(self, source: Source) -> bool:
        """Say whether it begins with a message of LangChain's, or a list of them."""
        first = source.sample
        # A list of lists: a conversation each.
        first = first[0] if isinstance(first, list) and first else first
        if not isinstance(first, dict):
            return False
        dumped = "lc" in first and isinstance(first.get("kwargs"), dict)
        # Others have events with a type and data.
        kind = str(first.get("type"))
        is_message = kind in (*ROLES, "chat") or kind.endswith("MessageChunk")
        return dumped or (is_message and isinstance(first.get("data"), dict))

    def read(self, source: Source) -> list[Conversation]:
        """Read the file's conversations, named by their numbers.

        Raises:
            TranscriptError: names the place of the first message that is not valid.
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
    """Return a message in the shape of ``chat.completions``."""
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


def chat_message(message: Any) -> Message:
    """Return a ``BaseMessage`` as a chat message, with its text and its images that have bytes.

    Raises:
        TranscriptError: its type is not known.
    """
    role = ROLES.get(message.type)
    if role is None:
        raise TranscriptError(f"a message of type {message.type!r} is not known")
    content = message.content
    return Message(
        role=role,
        text=content if isinstance(content, str) else str(message.text),
        tool_calls=tuple(
            ToolCall(it["name"], json.dumps(it["args"], ensure_ascii=False))
            for it in getattr(message, "tool_calls", ())
        ),
        id=message.id or "",
        images=() if isinstance(content, str) else _images(message.content_blocks),
    )


def _images(blocks: list[Any]) -> tuple[Image, ...]:
    found: list[Image] = []
    for block in blocks:
        if block.get("type") == "image" and block.get("base64"):
            try:
                data = base64.b64decode(block["base64"], validate=True)
            except binascii.Error:
                raise TranscriptError("an image is not base64") from None
            found.append(Image(block.get("mime_type", "image/png"), data))
    return tuple(found)
