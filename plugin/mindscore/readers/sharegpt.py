"""ShareGPT: ``{"conversations": [{"from": "human", "value": "..."}]}``, a line or in an array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers.reading import NO_SYSTEM, Reading
from mindscore.readers.source import Source, first_text, kind_of

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
}


class ShareGPTReader:
    """Reads training sets, and hermes' saved trajectories. Tool calls stay text."""

    def detects(self, source: Source) -> bool:
        """Return true if it begins with an object that holds ``conversations``."""
        first = source.sample
        return isinstance(first, dict) and isinstance(first.get("conversations"), list)

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the file's conversations, named by their ``id`` or number.

        Raises:
            TranscriptError: names the place of the first that is not valid.
        """
        for number, (where, record) in enumerate(source.objects(), start=1):
            reading = Reading(source)
            turns = source.items(where, "conversations", record.get("conversations"), "turn")
            for place, turn in turns:
                with reading.placed(place):
                    reading.add(place, _message(turn))
            # Tools, if there are any, are described in the system prompt.
            has_system = any(message.role == "system" for message in reading.messages)
            id_ = first_text(record.get("id"))
            remarks = () if has_system else (NO_SYSTEM,)
            yield reading.conversation(id_ or str(number), remarks, id_=id_)


def _message(turn: dict[str, Any]) -> dict[str, Any]:
    speaker, text = turn.get("from"), turn.get("value")
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise ValueError(f"'from': expected one of {', '.join(ROLES)}, got {speaker!r}")
    if not isinstance(text, str):
        raise ValueError(f"'value': expected text, got {kind_of(text)}")
    return {"role": ROLES[speaker], "content": text}
