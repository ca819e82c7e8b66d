"""Qwen Code: its sessions, trees of records with messages of the Gemini API. Tried with 0.15."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source, first_text

NO_SETTING = "the file does not record the setting that Qwen Code tells the model of at the start"


class Record(NamedTuple):
    """One record, with its place."""

    where: str
    fields: Mapping[str, Any]

    @property
    def message(self) -> Any:
        """The message to the model or from it; ``None`` of a record that is not sent."""
        return None if self.fields.get("type") == "system" else self.fields.get("message")

    @property
    def compressed(self) -> list[Any] | None:
        """The messages that replace all before them, if it is a compression."""
        payload = self.fields.get("systemPayload")
        found = payload.get("compressedHistory") if isinstance(payload, dict) else None
        compresses = self.fields.get("subtype") == "chat_compression"
        return found if compresses and isinstance(found, list) else None


class QwenCodeReader:
    """Reads ``~/.qwen/projects/*/chats/*.jsonl``."""

    def detects(self, source: Source) -> bool:
        """Return true if the first line is a record of such a tree."""
        return is_record(source.first)

    def read(self, source: Source) -> list[Conversation]:
        """Return the conversation that leads to the last record.

        Raises:
            TranscriptError: nothing in the file can be read.
        """
        reading = Reading(source)
        records: dict[str, list[Record]] = {}
        last = id_ = ""
        for where, fields in source.objects():
            with reading.leaving_out(where):
                if not isinstance(fields.get("uuid"), str):
                    raise ValueError("'uuid': expected text")
                last = fields["uuid"]
                id_ = id_ or first_text(fields.get("sessionId"))
                records.setdefault(last, []).append(Record(where, fields))
        for record in _in_prompt(reading, _path(records, last)):
            with reading.leaving_out(record.where):
                message = record.message
                if not isinstance(message, dict):
                    raise ValueError("'message': expected an object")
                said = {"id": record.fields.get("uuid"), **message}
                reading.add(record.where, said, timestamp=record.fields.get("timestamp"))
        reading.require_messages()
        reading.remarks.append(NO_SETTING)
        return [reading.conversation(id_ or source.file.stem, id_=id_)]


def is_record(value: Any) -> bool:
    """Say whether ``value`` is a record; Claude Code's are alike, but for their messages."""
    if not isinstance(value, dict) or not {"uuid", "parentUuid", "sessionId"} <= value.keys():
        return False
    message = value.get("message")
    return "systemPayload" in value or (isinstance(message, dict) and "parts" in message)


def _path(records: Mapping[str, list[Record]], last: str) -> list[Record]:
    """Return the records from the first to those of the id ``last``."""
    path: list[Record] = []
    seen: set[str] = set()
    while last in records and last not in seen:
        seen.add(last)
        path += records[last][::-1]
        last = first_text(records[last][0].fields.get("parentUuid"))
    return path[::-1]


def _in_prompt(reading: Reading, path: list[Record]) -> list[Record]:
    """Return the records whose messages are in the prompt: the last compression replaces some."""
    found: list[Record] = []
    for record in path:
        if record.compressed is not None:
            for _ in found:
                reading.leave_out("messages before a compression")
            given = record.fields.get("timestamp")
            found = [
                Record(record.where, {"message": it, "timestamp": given})
                for it in record.compressed
            ]
        elif record.message is not None:
            found.append(record)
    return found
