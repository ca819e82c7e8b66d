"""OpenAI chat: ``{"messages": [...]}`` a line or in an array, or the messages alone in one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers.reading import Reading
from mindscore.readers.source import Source, first_text, kind_of


class OpenAIChatReader:
    """Reads messages as ``chat.completions`` and fine-tuning files have them.

    ``"memories": {key: text}`` beside the messages names memories that are printed in them.
    """

    def detects(self, source: Source) -> bool:
        """Return true if it begins with such messages, or with an object that holds some."""
        first = source.sample
        if not isinstance(first, dict):
            return False
        if isinstance(source.first, list) and "role" in first and "content" in first:
            return True
        # With these beside them, they are an export of hermes, or an agent file of Letta's.
        others = {"system_prompt", "core_memory"} & first.keys()
        if not isinstance(first.get("messages"), list) or others:
            return False
        return all(isinstance(it, dict) and "role" in it for it in first["messages"][:1])

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the file's conversations, named by their ``id`` or number.

        Raises:
            TranscriptError: names the place of the first that is not valid.
        """
        for number, (where, value) in enumerate(_records(source), start=1):
            record: dict[str, Any] = value if isinstance(value, dict) else {"messages": value}
            reading = Reading(source)
            messages = source.items(where, "messages", record.get("messages"), "message")
            for place, message in messages:
                reading.add(place, _with_calls(message))
            yield reading.conversation(
                first_text(record.get("id"), str(number)),
                memories=_memories(source, where, record.get("memories")),
                tools=record.get("tools"),
                id_=first_text(record.get("id")),
            )


def _records(source: Source) -> Iterator[tuple[str, Any]]:
    for where, value in source.values():
        if isinstance(value, list) and value and _holds_messages(value[0]):
            for at, item in enumerate(value, start=1):
                yield f"{where}, item {at}", item
        else:
            yield where, value


def _holds_messages(value: Any) -> bool:
    return isinstance(value, dict) and "messages" in value


def _with_calls(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message with its ``function_call``, of older files, as a tool call."""
    call = message.get("function_call")
    if call is None or message.get("tool_calls"):
        return message
    return {**message, "tool_calls": [call]}


def _memories(source: Source, where: str, given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        source.refuse(where, f"'memories': expected an object, got {kind_of(given)}")
    for key, text in given.items():
        if not isinstance(text, str):
            source.refuse(where, f"'memories', {key!r}: expected text, got {kind_of(text)}")
    return given
