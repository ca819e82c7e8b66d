"""Messages of a conversation before they are tokenised."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mindhooks import Image, Part, Role
from mindscore._util.errors import TranscriptError
from mindscore.recognisers import Block

ROLES: dict[str, Role] = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "human": Role.USER,
    "assistant": Role.ASSISTANT,
    "ai": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}
"""Roles by the names that OpenAI and LangChain give them."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A response's call of a tool; ``arguments`` are JSON text."""

    name: str
    arguments: str

    def text(self) -> str:
        """Return the call as Hermes-style ChatML templates print it."""
        return f'<tool_call>\n{{"name": {json.dumps(self.name)}, "arguments": {self.arguments}}}\n</tool_call>'  # noqa: E501


@dataclass(frozen=True, slots=True)
class Message:
    """One message, from any source: a file, an agent, a template's input.

    ``text`` is the text that a human reads: empty for a response that only calls tools.
    """

    role: Role
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    memory_key: str | None = None
    """The key of a message that is a memory as a whole."""
    id: str = ""
    """The source's own id; empty if it has none, until ``with_ids`` gives one."""
    timestamp_ns: int | None = None
    images: tuple[Image, ...] = ()
    blocks: tuple[Block, ...] = ()
    """Spans of ``text`` that hold memories, with their host's rules for printing fewer of them."""
    parts: tuple[Part, ...] = ()
    """``text`` in pieces, if some of them are memories."""
    token_ids: tuple[int, ...] | None = None
    """The message as it goes to the model, if the source records that."""
    body: tuple[int, int] | None = None
    """The half-open span of ``token_ids`` that the model produced."""

    def memory_keys(self) -> list[str]:
        """Return the keys of its memories, its own first."""
        keys = [self.memory_key, *(part.memory_key for part in self.parts)]
        return [key for key in keys if key is not None]

    def with_blocks(self, blocks: Sequence[Block]) -> Message:
        """Return the message with ``blocks`` marked; each of their entries becomes a part."""
        parts: list[Part] = []
        at = 0
        for block in blocks:
            parts.append(Part(self.text[at : block.start], None))
            parts += [Part(entry.text, entry.key) for entry in block.entries]
            at = block.end
        parts.append(Part(self.text[at:], None))
        return replace(self, blocks=tuple(blocks), parts=tuple(part for part in parts if part.text))

    def text_without(self, skipped: frozenset[str]) -> str:
        """Return the text without the memories of the ``skipped`` keys, by their host's rules."""
        if not self.blocks:
            return "".join(part.text for part in self.parts if part.memory_key not in skipped)
        text, at = "", 0
        for block in self.blocks:
            text += self.text[at : block.start] + block.render(skipped)
            at = block.end
        return text + self.text[at:]


def from_openai(message: Mapping[str, Any]) -> Message:
    """Return a message of ``chat.completions``.

    Raises:
        TranscriptError: it is not valid; the text says why.
    """
    given = message.get("role")
    if not isinstance(given, str) or given not in ROLES:
        raise TranscriptError(f"'role': expected one of {', '.join(ROLES)}, got {given!r}")
    text, images = _content(message.get("content"))
    if not text and isinstance(refusal := message.get("refusal"), str):
        text = refusal
    calls = message.get("tool_calls") or ()
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise TranscriptError("'tool_calls': expected a list")
    name = message.get("id")
    return Message(
        role=ROLES[given],
        text=text,
        tool_calls=tuple(_tool_call(call) for call in calls),
        id=name if isinstance(name, str) else "",
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
        elif part.get("type") == "refusal":
            texts.append(_text(part.get("refusal"), "content.refusal"))
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
    if isinstance(call, Mapping) and isinstance(custom := call.get("custom"), Mapping):
        # A custom tool's input is text of any form.
        function = {"name": custom.get("name"), "arguments": json.dumps(custom.get("input"))}
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


def with_ids(messages: Iterable[Message]) -> list[Message]:
    """Return the messages, each with an id that it keeps while the conversation goes on.

    The id is the message's own, if no earlier one has it; else a hash of the message and of the
    number of equal ones before it. What comes before may change, as a system prompt with the date
    in it does.
    """
    taken: set[str] = set()
    seen: dict[str, int] = {}
    named: list[Message] = []
    for message in messages:
        content = json.dumps(
            [message.role, message.text, message.memory_key]
            + [[it.name, it.arguments] for it in message.tool_calls]
        )
        name = message.id or hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
        free = name
        while free in taken:
            seen[name] = seen.get(name, 1) + 1
            free = f"{name}-{seen[name]}"
        taken.add(free)
        named.append(replace(message, id=free))
    return named
