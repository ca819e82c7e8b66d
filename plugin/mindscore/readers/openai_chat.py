"""OpenAI chat: ``{"messages": [...]}`` a line or in an array, or the messages alone in one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers.source import Reading, Source, kind_of, sample, values


class OpenAIChatReader:
    """Reads messages as ``chat.completions`` and fine-tuning files have them.

    ``"memories": {key: text}`` beside the messages names memories that are printed in them.
    """

    name = "openai"

    def detects(self, source: Source) -> bool:
        """Whether it begins with such messages, or with an object that holds some."""
        first = sample(source)
        if not isinstance(first, dict):
            return False
        if isinstance(source.first, list) and "role" in first and "content" in first:
            return True
        # With a system prompt beside them, they are an export of hermes.
        if not isinstance(first.get("messages"), list) or "system_prompt" in first:
            return False
        return all(isinstance(it, dict) and "role" in it for it in first["messages"][:1])

    def read(self, source: Source) -> list[Conversation]:
        """The file's conversations, called by their ``id`` or number.

        Raises:
            TranscriptError: names the place of the first that is none.
        """
        return [
            self._conversation(source, where, value, number)
            for number, (where, value) in enumerate(self._records(source), start=1)
        ]

    def _records(self, source: Source) -> Iterator[tuple[str, Any]]:
        for where, value in values(source):
            if isinstance(value, list) and value and _holds_messages(value[0]):
                for at, item in enumerate(value, start=1):
                    yield f"{where}, item {at}", item
            else:
                yield where, value

    def _conversation(self, source: Source, where: str, value: Any, number: int) -> Conversation:
        record: dict[str, Any] = value if isinstance(value, dict) else {"messages": value}
        given = record.get("messages")
        if not isinstance(given, list) or not given:
            found = "none" if given == [] else kind_of(given)
            source.refuse(where, f"'messages': expected an array of messages, got {found}")
        reading = Reading(source)
        for at, message in enumerate(given, start=1):
            place = f"{where}, message {at}"
            if not isinstance(message, dict):
                source.refuse(place, f"expected an object, got {kind_of(message)}")
            reading.add(place, _with_calls(message))
        name = record.get("id")
        return reading.conversation(
            name if isinstance(name, str) and name else str(number),
            memories=_memories(source, where, record.get("memories")),
            tools_recorded=bool(record.get("tools")),
        )


def _holds_messages(value: Any) -> bool:
    return isinstance(value, dict) and "messages" in value


def _with_calls(message: dict[str, Any]) -> dict[str, Any]:
    """The message with what older ones call its function, among its tool calls."""
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
