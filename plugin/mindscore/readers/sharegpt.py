"""ShareGPT: ``{"conversations": [{"from": "human", "value": "..."}]}``, a line or in an array."""

from __future__ import annotations

from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers.source import NO_SYSTEM, Reading, Source, kind_of, objects, sample

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
}


class ShareGPTReader:
    """Reads what training sets, and hermes' saved trajectories, are in. Tool calls stay text."""

    name = "sharegpt"

    def detects(self, source: Source) -> bool:
        """Whether it begins with an object that holds ``conversations``."""
        first = sample(source)
        return isinstance(first, dict) and isinstance(first.get("conversations"), list)

    def read(self, source: Source) -> list[Conversation]:
        """The file's conversations, called by their ``id`` or number.

        Raises:
            TranscriptError: names the place of the first that is none.
        """
        return [
            self._conversation(source, where, record, number)
            for number, (where, record) in enumerate(objects(source), start=1)
        ]

    def _conversation(
        self, source: Source, where: str, record: dict[str, Any], number: int
    ) -> Conversation:
        turns = record.get("conversations")
        if not isinstance(turns, list) or not turns:
            found = "none" if turns == [] else kind_of(turns)
            source.refuse(where, f"'conversations': expected an array of turns, got {found}")
        reading = Reading(source)
        for at, turn in enumerate(turns, start=1):
            place = f"{where}, turn {at}"
            if not isinstance(turn, dict):
                source.refuse(place, f"expected an object, got {kind_of(turn)}")
            with reading.placed(place):
                reading.add(place, _message(turn))
        name = record.get("id")
        # Tools, where there are any, are told of in the system prompt.
        has_system = any(message.role == "system" for message in reading.messages)
        return reading.told(
            name if isinstance(name, str) and name else str(number),
            () if has_system else (NO_SYSTEM,),
        )


def _message(turn: dict[str, Any]) -> dict[str, Any]:
    speaker, text = turn.get("from"), turn.get("value")
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise ValueError(f"'from': expected one of {', '.join(ROLES)}, got {speaker!r}")
    if not isinstance(text, str):
        raise ValueError(f"'value': expected text, got {kind_of(text)}")
    return {"role": ROLES[speaker], "content": text}
