"""Messages in the shape that chat templates take, with memories where a template can hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mindhooks import Role, ScorerError
from mindscore.conversation.message import Message


@dataclass(slots=True)
class Placement:
    """The way in which a template is given memories that are messages of their own."""

    role: str
    """``memory``, ``system``, or ``user`` for a part of the next message of the user's."""
    marked: frozenset[Role] = frozenset()
    """Roles of messages whose images are given as parts, for which the template has a marker."""

    def messages(self, messages: Iterable[Message]) -> list[dict[str, Any]]:
        """Return the messages in the shape that templates are written for."""
        found: list[dict[str, Any]] = []
        waiting: list[str] = []
        images: list[tuple[dict[str, Any], int]] = []
        for message in messages:
            if message.role == Role.MEMORY and self.role == "user":
                waiting.append(message.printed)
                continue
            it = as_dict(message)
            if message.role == Role.MEMORY:
                it["role"] = self.role
            if message.shown and message.role in self.marked:
                it["content"] = message.text
                images.append((it, message.shown))
            if message.role == Role.USER and waiting:
                it["content"] = "\n\n".join([*waiting, it["content"]])
                waiting = []
            found.append(it)
        if waiting:
            # Nobody speaks after them: the last message of the user's has them.
            last = next((it for it in reversed(found) if it["role"] == "user"), None)
            if last is None:
                raise ScorerError("the chat template has no place for memories without a user")
            last["content"] = "\n\n".join([last["content"], *waiting])
        for it, count in images:
            text = [{"type": "text", "text": it["content"]}] if it["content"] else []
            it["content"] = [{"type": "image"}] * count + text
        return found


PLACES = ("memory", "system", "user")
"""The ways to print a memory, in the order in which they are tried."""


def as_dict(message: Message) -> dict[str, Any]:
    """Return the message as servers give it to templates: arguments of calls are objects."""
    line: dict[str, Any] = {"role": str(message.role), "content": message.printed}
    if message.reasoning:
        line |= {"reasoning": message.reasoning, "reasoning_content": message.reasoning}
    if message.tool_calls:
        line["tool_calls"] = [
            {
                "id": it.id,
                "type": "function",
                "function": {"name": it.name, "arguments": _arguments(it.arguments)},
            }
            for it in message.tool_calls
        ]
    if message.tool_call_id:
        line["tool_call_id"] = message.tool_call_id
    if message.name:
        line["name"] = message.name
    return line


def _arguments(text: str) -> Any:
    try:
        return json.loads(text) if text else {}
    except (RecursionError, ValueError):
        return text
