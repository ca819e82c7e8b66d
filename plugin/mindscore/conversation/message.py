"""Messages of a conversation before they are tokenised."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mindhooks import Image, Part, Role
from mindscore._util.errors import TranscriptError
from mindscore.conversation.template import Line, ToolCall
from mindscore.recognisers import Block


@dataclass(frozen=True, slots=True)
class Message:
    """What a file says of one message; ``token_ids`` and ``body`` where it gives them."""

    id: str
    role: Role
    text: str
    key: str | None
    parts: tuple[Part, ...]
    timestamp_ns: int | None
    images: tuple[Image, ...]
    token_ids: tuple[int, ...] | None
    body: tuple[int, int] | None
    tool_calls: tuple[ToolCall, ...] = ()
    without: Callable[[frozenset[str]], str] | None = None
    """How its host prints it without some of its memories, where not just without their parts."""

    def memory_keys(self) -> list[str]:
        """The memory keys it bears, its own first."""
        keys = [self.key, *(part.memory_key for part in self.parts)]
        return [key for key in keys if key is not None]

    def line(self, text: str | None = None) -> Line:
        """The message as a chat template takes it; with ``text`` in the place of its own."""
        return Line(self.role, self.text if text is None else text, self.tool_calls)

    def text_without(self, skipped: frozenset[str]) -> str:
        """What it would say without some of its memories."""
        if self.without is not None:
            return self.without(skipped)
        return "".join(part.text for part in self.parts if part.memory_key not in skipped)


ChatRole = Literal["system", "user", "assistant", "tool", "memory"]
ROLES: dict[str, ChatRole] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
}


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """``text`` is what a human reads: empty for a response that only calls tools.

    With ``memory_key`` the whole message is a memory. ``id`` is the host's own, if it has one.
    ``blocks``: where its host says that memories stand in ``text``; nothing else is looked for.
    """

    role: ChatRole
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    memory_key: str | None = None
    id: str | None = None
    timestamp_ns: int | None = None
    images: tuple[Image, ...] = ()
    blocks: tuple[Block, ...] = ()


def from_openai(message: Mapping[str, Any]) -> ChatMessage:
    """A message of ``chat.completions``.

    Raises:
        TranscriptError: it is not one; the text says what is wrong.
    """
    given = message.get("role")
    if not isinstance(given, str) or given not in ROLES:
        raise TranscriptError(f"'role': expected one of {', '.join(ROLES)}, got {given!r}")
    text, images = _content(message.get("content"))
    calls = message.get("tool_calls") or ()
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise TranscriptError("'tool_calls': expected a list")
    name = message.get("id")
    return ChatMessage(
        role=ROLES[given],
        text=text,
        tool_calls=tuple(_tool_call(call) for call in calls),
        id=name if isinstance(name, str) and name else None,
        images=images,
    )


def _content(content: Any) -> tuple[str, tuple[Image, ...]]:
    if content is None:
        return "", ()
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, Sequence):
        raise TranscriptError(f"'content': expected text or parts, got {type(content).__name__}")
    texts: list[str] = []
    images: list[Image] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, Mapping):
            raise TranscriptError(f"'content': expected parts, got {type(part).__name__}")
        elif part.get("type") in ("text", "input_text", "output_text"):
            texts.append(_text(part.get("text"), "content.text"))
        elif part.get("type") == "image_url":
            images.append(_image(part.get("image_url")))
        else:
            raise TranscriptError(f"'content': a part of type {part.get('type')!r} is not known")
    return "".join(texts), tuple(images)


def _image(given: Any) -> Image:
    url = given.get("url") if isinstance(given, Mapping) else given
    head, _, data = url.partition(";base64,") if isinstance(url, str) else ("", "", "")
    if not head.startswith("data:") or not data:
        raise TranscriptError("'image_url': expected a data: address; others cannot be scored")
    try:
        return Image(head.removeprefix("data:"), base64.b64decode(data, validate=True))
    # Not only binascii.Error: of characters that are not ASCII.
    except ValueError:
        raise TranscriptError("'image_url': is not base64") from None


def _tool_call(call: Any) -> ToolCall:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise TranscriptError("'tool_calls': expected objects with a function")
    arguments = function.get("arguments", function.get("args", "{}"))
    if not isinstance(arguments, str):
        try:
            arguments = json.dumps(arguments, ensure_ascii=False)
        except (RecursionError, TypeError, ValueError):
            raise TranscriptError("'tool_calls': the arguments are no JSON") from None
    return ToolCall(_text(function.get("name"), "tool_calls.function.name"), arguments)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise TranscriptError(f"'{where}': expected text, got {type(value).__name__}")
    return value


def with_ids(messages: Iterable[ChatMessage]) -> list[tuple[str, ChatMessage]]:
    """Each message with an id that it keeps while the conversation goes on.

    Its own, where it is not taken; else a hash of what it says and of how many before it said the
    same: what comes before may change, as a system prompt with the date in it does.
    """
    taken: set[str] = set()
    seen: dict[str, int] = {}
    named: list[tuple[str, ChatMessage]] = []
    for message in messages:
        said = json.dumps(
            [message.role, message.text, message.memory_key]
            + [[it.name, it.arguments] for it in message.tool_calls]
        )
        name = message.id or hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
        free = name
        while free in taken:
            seen[name] = seen.get(name, 1) + 1
            free = f"{name}-{seen[name]}"
        taken.add(free)
        named.append((free, message))
    return named
