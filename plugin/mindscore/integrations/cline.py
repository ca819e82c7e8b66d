"""Tasks of Cline and Roo Code: ``api_conversation_history.json``, after Roo Code's source.

Messages are Anthropic's, with their times; Roo Code keeps those that a summary or a truncation
hides from the model. Older tasks, without times, are read as other messages are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source
from mindscore.readers.reading import iso_time

_HIDDEN_BY = (("condenseParent", "condenseId"), ("truncationParent", "truncationId"))
"""The field of a hidden message that names what hides it, and that of the latter."""


class ClineReader:
    """Reads the messages of a task; the files beside it are not read."""

    def detects(self, source: Source) -> bool:
        """Return true if it is an array of messages with times, or version 2 of one."""
        first = source.sample
        if isinstance(source.first, list):
            return is_message(first)
        if not isinstance(first, dict) or not isinstance(first.get("messages"), list):
            return False
        return first.get("version") == 2 and all(map(is_message, first["messages"][:1]))

    def read(self, source: Source) -> list[Conversation]:
        """Return the conversation, without what the model no longer sees.

        Raises:
            TranscriptError: nothing in the file can be read.
        """
        reading = Reading(source)
        given: list[tuple[str, Any]] = list(source.objects())
        if given and isinstance(given[0][1].get("messages"), list):
            messages = given[0][1]["messages"]
            given = [(f"message {at}", it) for at, it in enumerate(messages, start=1)]
        shown = _shown(reading, [(where, it) for where, it in given if isinstance(it, dict)])
        for where, message in shown:
            if message.get("type") == "reasoning":
                reading.leave_out("reasoning that is encrypted")
                continue
            if message.get("isSummary") and message.get("role") == "assistant":
                reading.remarks.append(f"{where}: a summary stands where a response would")
            when = message.get("ts")
            with reading.leaving_out(where):
                seconds = when / 1000 if isinstance(when, int | float) else None
                reading.add(where, message, timestamp=iso_time(seconds))
        reading.require_messages()
        return [reading.conversation(source.file.stem)]


def is_message(value: Any) -> bool:
    """Say whether ``value`` is a message with its time."""
    if not isinstance(value, dict) or value.get("role") not in ("user", "assistant"):
        return False
    return "content" in value and isinstance(value.get("ts"), int)


def _shown(
    reading: Reading, messages: list[tuple[str, Mapping[str, Any]]]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the messages that no summary and no truncation hides from the model."""
    hiding = {
        (parent, str(it[own])) for _, it in messages for parent, own in _HIDDEN_BY if it.get(own)
    }
    shown = []
    for where, message in messages:
        if any((parent, str(message.get(parent))) in hiding for parent, _ in _HIDDEN_BY):
            reading.leave_out("messages that are hidden from the model")
        else:
            shown.append((where, message))
    if len(shown) == len(messages):
        return shown
    calls = {str(it.get("id")) for _, message in shown for it in _blocks(message, "tool_use")}
    sent = [(where, _without_orphans(message, calls)) for where, message in shown]
    return [(where, message) for where, message in sent if message.get("content") != []]


def _blocks(message: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    return [it for it in blocks if isinstance(it, dict) and it.get("type") == kind]


def _without_orphans(message: Mapping[str, Any], calls: set[str]) -> Mapping[str, Any]:
    """Return the message without results of calls that are hidden, which are not sent either."""
    results = _blocks(message, "tool_result")
    orphans = [id(it) for it in results if str(it.get("tool_use_id")) not in calls]
    if not orphans:
        return message
    return {**message, "content": [it for it in message["content"] if id(it) not in orphans]}
