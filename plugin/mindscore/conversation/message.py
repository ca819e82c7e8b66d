"""Messages of a conversation before they are tokenised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from mindhooks import Image, Part, Role
from mindscore.recognisers import Block

ROLES: dict[str, Role] = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "human": Role.USER,
    "assistant": Role.ASSISTANT,
    "ai": Role.ASSISTANT,
    "model": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
    "toolResult": Role.TOOL,
}
"""Roles by the names that chat APIs give them."""


PLACEHOLDER = "[image]"
"""Text in place of an image, where the chat template has no marker of its own for one."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A response's call of a tool; ``arguments`` are JSON text.

    ``id`` is what the tool's result refers to; two calls that differ in it alone are equal.
    """

    name: str
    arguments: str
    id: str = field(default="", compare=False)

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
    placeholders: int = 0
    """The number of images that are left out, for each of which a placeholder is printed."""
    blocks: tuple[Block, ...] = ()
    """Spans of ``text`` that hold memories, with their host's rules for printing fewer of them."""
    parts: tuple[Part, ...] = ()
    """``text`` in pieces, if some of them are memories."""
    token_ids: tuple[int, ...] | None = None
    """The message as it goes to the model, if the source records that."""
    body: tuple[int, int] | None = None
    """The half-open span of ``token_ids`` that the model produced."""
    reasoning: str = ""
    """What the model wrote before ``text``, where the source keeps it apart."""
    tool_call_id: str = ""
    """The call that a tool's result answers; empty if the source does not say."""
    name: str = ""
    """The name of the tool whose result it is; empty if the source does not say."""

    def memory_keys(self) -> list[str]:
        """Return the keys of its memories, its own first."""
        keys = [self.memory_key, *(part.memory_key for part in self.parts)]
        return [key for key in keys if key is not None]

    def without_images(self) -> Message:
        """Return the message with placeholders in place of its images."""
        return replace(self, images=(), placeholders=len(self.images)) if self.images else self

    @property
    def shown(self) -> int:
        """The number of its placeholders that are printed.

        A response has none: the model did not write them. Nor are token ids changed.
        """
        is_fixed = self.role == Role.ASSISTANT or self.token_ids is not None
        return 0 if is_fixed else self.placeholders

    @property
    def printed(self) -> str:
        """The text, behind a line with a placeholder for each image that is left out."""
        lines = [PLACEHOLDER] * self.shown
        return "\n".join([*lines, self.text] if self.text else lines)

    @property
    def is_image_alone(self) -> bool:
        """True for a response of images that are left out: nothing of it can be scored."""
        is_silent = not (self.text.strip() or self.tool_calls or self.reasoning)
        return self.role == Role.ASSISTANT and bool(self.placeholders) and is_silent

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
