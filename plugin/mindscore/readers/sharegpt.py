"""ShareGPT: ``{"conversations": [{"from": "human", "value": "..."}]}``, a line or in an array."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mindhooks import Role
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message
from mindscore.readers.reading import Reading
from mindscore.readers.source import Source, first_text, kind_of

ROLES = {
    "system": "system",
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(
        ("gpt", "assistant", "model", "bot", "chatgpt", "bing", "bard", "claude", "gemini"),
        "assistant",
    ),
    **dict.fromkeys(("tool", "observation", "function_response", "function"), "tool"),
}
"""Roles by the names of speakers."""

CALLS = ("function_call", "tool_call", "tool_calls")
"""Speakers of a turn that calls tools: its text is JSON, of one call or several."""


class ShareGPTReader:
    """Reads training sets, and hermes' saved trajectories, where tool calls stay text.

    ``system`` and ``tools`` beside the turns are LLaMA-Factory's columns.
    """

    def detects(self, source: Source) -> bool:
        """Return true if it begins with an object that holds ``conversations``."""
        first = source.sample
        return isinstance(first, dict) and isinstance(first.get("conversations"), list)

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the file's conversations, named by their ``id`` or number.

        Raises:
            TranscriptError: the file is not valid.
        """

        def conversation(number: str, where: str, record: dict[str, Any]) -> Conversation:
            reading = Reading(source)
            turns = source.items(where, "conversations", record.get("conversations"), "turn")
            for place, turn in turns:
                with reading.placed(place):
                    reading.add(place, _message(turn))
            system, id_ = first_text(record.get("system")), first_text(record.get("id"))
            # The column is for those that do not begin with a system prompt.
            if system and reading.messages[0].role != Role.SYSTEM:
                reading.messages.insert(0, Message(Role.SYSTEM, system))
            has_system = reading.messages[0].role == Role.SYSTEM
            tools = record.get("tools")
            # Without a column, tools are described in the system prompt.
            remarks = () if has_system and not tools else None
            return reading.conversation(id_ or number, remarks, tools=tools, id_=id_)

        return source.read_each(source.objects(), conversation)


def _message(turn: dict[str, Any]) -> dict[str, Any]:
    speaker = first_text(turn.get("from"), turn.get("role"))
    text = turn.get("value", turn.get("content"))
    if speaker not in ROLES and speaker not in CALLS:
        known = ", ".join((*ROLES, *CALLS))
        raise ValueError(f"'from': expected one of {known}, got {turn.get('from')!r}")
    if not isinstance(text, str):
        raise ValueError(f"'value': expected text, got {kind_of(text)}")
    calls = _calls(text) if speaker in CALLS else []
    if calls:
        return {"role": "assistant", "tool_calls": calls}
    return {"role": ROLES.get(speaker, "assistant"), "content": text}


def _calls(text: str) -> list[Any]:
    """Return the tool calls in ``text``; none if it is what a model wrote in its own way."""
    try:
        found = json.loads(text)
    except (RecursionError, ValueError):
        return []
    calls = found if isinstance(found, list) else [found]
    return calls if all(isinstance(it, dict) and "name" in it for it in calls) else []
