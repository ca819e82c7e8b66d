"""Messages of chat APIs: in ``{"messages": [...]}``, in an array, or one a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.conversation.native import parse_timestamp
from mindscore.readers.native import is_chat_log
from mindscore.readers.reading import Reading
from mindscore.readers.responses import asked_and_answered, holds_items, name_of_call
from mindscore.readers.source import Source, kind_of


class OpenAIChatReader:
    """Reads messages as ``chat.completions``, Anthropic's Messages and fine-tuning files have them.

    Beside them may be ``system``, as Anthropic has it, ``tools``, and ``"memories": {key: text}``,
    which names memories that are printed in them.
    """

    def detects(self, source: Source) -> bool:
        """Return true if it begins with such messages, or with an object that holds some."""
        first = source.sample
        if not isinstance(first, dict):
            return False
        if _is_message(first) and holds_items(source):
            return False
        if isinstance(source.first, list) and _is_message(first):
            # Those of Cline and Roo Code have times, and some are hidden from the model.
            return not isinstance(first.get("ts"), int)
        # With these beside them, they are an export of hermes, or an agent file of Letta's.
        others = {"system_prompt", "core_memory"} & first.keys()
        asked, _ = asked_and_answered(first)
        if isinstance(asked.get("messages"), list) and not others:
            begin = asked["messages"][:1]
            if not all(isinstance(it, dict) and "role" in it for it in begin):
                return False
            return first.get("version") != 2 or not any("ts" in it for it in begin)
        return is_chat_log(source)

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the file's conversations, named by their ``id`` or number.

        Raises:
            TranscriptError: the file is not valid, or no message of one a line is.
        """
        if isinstance(source.first, dict) and _is_message(source.first):
            return iter([_log(source)])

        def conversation(number: str, where: str, value: Any) -> Conversation:
            return _conversation(source, number, where, value)

        # An array of messages is one conversation, an array of objects that hold some are several.
        sample = source.sample
        holds = isinstance(sample, dict) and "messages" in asked_and_answered(sample)[0]
        records: Iterable[tuple[str, Any]] = source.objects() if holds else source.values()
        return source.read_each(records, conversation, name_of_call)


def _is_message(value: dict[str, Any]) -> bool:
    said = ("content", "parts", "tool_calls", "function_call")
    return "role" in value and "messages" not in value and any(key in value for key in said)


def _conversation(source: Source, number: str, where: str, value: Any) -> Conversation:
    record: dict[str, Any] = value if isinstance(value, dict) else {"messages": value}
    asked, answered = asked_and_answered(record)
    reading = Reading(source)
    if system := asked.get("system"):
        reading.add(where, {"role": "system", "content": system})
    messages = source.items(where, "messages", asked.get("messages"), "message")
    for place, message in messages:
        reading.add(place, message)
    for at, answer in enumerate(_answers(answered)):
        if at == 0:
            reading.add(f"{where}, the response", answer)
        else:
            reading.leave_out("responses beside the first")
    id_ = name_of_call(record)
    return reading.conversation(
        id_ or number,
        memories=_memories(source, where, record.get("memories")),
        tools=asked.get("tools") or asked.get("functions"),
        id_=id_,
    )


def _answers(answered: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a response, OpenAI's or Anthropic's; several if so many were asked."""
    if answered.get("type") == "message" and answered.get("role") == "assistant":
        return [answered]
    choices = answered.get("choices")
    choices = choices if isinstance(choices, list) else []
    held = [it.get("message") for it in choices if isinstance(it, dict)]
    return [it for it in held if isinstance(it, dict)]


def _log(source: Source) -> Conversation:
    """Return the one conversation of a file with a message a line."""
    reading = Reading(source)
    for where, message in source.objects():
        with source.leaving_out():
            reading.add(where, message, timestamp=_timestamp(message.get("timestamp")))
    if not reading.messages:
        source.refuse_empty("holds no messages")
    return reading.conversation(source.file.stem)


def _timestamp(value: Any) -> str | None:
    """Return a time that is ISO 8601; logs have times of any form."""
    try:
        parse_timestamp(value if isinstance(value, str) else "")
    except ValueError:
        return None
    return str(value)


def _memories(source: Source, where: str, given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        source.refuse(where, f"'memories': expected an object, got {kind_of(given)}")
    for key, text in given.items():
        if not isinstance(text, str):
            source.refuse(where, f"'memories', {key!r}: expected text, got {kind_of(text)}")
    return given
