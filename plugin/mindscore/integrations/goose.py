"""Goose: ``sessions.db``, exports of a session, and the older files of a session.

Written against its source, with schema 5 of the database and before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source, first_text
from mindscore.readers.reading import iso_time

_FOR_THE_SCREEN = ("systemNotification", "toolConfirmationRequest", "actionRequired")
_KINDS = {"frontendToolRequest": "toolRequest", "redactedThinking": "redacted_thinking"}
"""Goose's names of blocks that others know under another name."""

Session = tuple[Mapping[str, Any], Iterable[tuple[str, Mapping[str, Any]]]]
"""A session's own fields, and its messages with their places."""


class GooseReader:
    """Reads sessions: each is a conversation, named by its id."""

    def detects(self, source: Source) -> bool:
        """Return true if it is a database of sessions, or begins with one."""
        if source.is_sqlite:
            with source.database() as connection:
                tables = connection.execute(
                    "SELECT sql FROM sqlite_master WHERE name IN ('sessions', 'messages')"
                )
                schema = " ".join(str(row["sql"]) for row in tables)
            return "working_dir" in schema and "content_json" in schema
        first = source.sample
        if not isinstance(first, dict) or not isinstance(first.get("working_dir"), str):
            return False
        return isinstance(first.get("conversation"), list) or "message_count" in first

    def read(self, source: Source) -> list[Conversation]:
        """Return the sessions, each with what the model sees of it.

        Raises:
            TranscriptError: nothing in the file can be read.
        """
        sessions = _stored(source) if source.is_sqlite else _written(source)
        found = [it for it in (_conversation(source, *each) for each in sessions) if it.messages]
        if not found:
            source.refuse_empty("holds no messages")
        return found


def _stored(source: Source) -> list[Session]:
    with source.database() as connection:
        messages: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
        for row in connection.execute("SELECT * FROM messages ORDER BY id"):
            held, where = dict(row), f"message {row['id']}"
            with source.leaving_out(), source.placed(where):
                message = {
                    "id": held.get("message_id"),
                    "role": held.get("role"),
                    "created": held.get("created_timestamp"),
                    "content": json.loads(held["content_json"]),
                    "metadata": json.loads(held.get("metadata_json") or "null"),
                }
                messages.setdefault(held["session_id"], []).append((where, message))
        rows = connection.execute("SELECT * FROM sessions ORDER BY rowid")
        return [(dict(it), messages.get(it["id"], [])) for it in rows]


def _written(source: Source) -> Iterator[Session]:
    """Yield the sessions of exports, or the one whose messages are lines."""
    lines: list[tuple[str, Mapping[str, Any]]] = []
    head: Mapping[str, Any] = {}
    for where, record in source.objects():
        conversation = record.get("conversation")
        if isinstance(conversation, list):
            yield (
                record,
                (
                    (f"{where}, message {at}", it if isinstance(it, dict) else {})
                    for at, it in enumerate(conversation, start=1)
                ),
            )
        elif "working_dir" in record and "role" not in record:
            head = record
        else:
            lines.append((where, record))
    yield head, lines


def _conversation(
    source: Source, session: Mapping[str, Any], messages: Iterable[tuple[str, Mapping[str, Any]]]
) -> Conversation:
    reading = Reading(source)
    for where, message in messages:
        with reading.leaving_out(where):
            metadata = message.get("metadata")
            if isinstance(metadata, dict) and metadata.get("agentVisible") is False:
                reading.leave_out("messages that are hidden from the model")
                continue
            content = message.get("content")
            blocks = list(_blocks(content)) if isinstance(content, list) else content
            if content and not blocks:
                continue
            fields = {"role": message.get("role"), "content": blocks, "id": message.get("id")}
            reading.add(where, fields, timestamp=iso_time(message.get("created")))
    id_ = first_text(session.get("id"))
    title = first_text(session.get("name"), session.get("description"))
    return reading.conversation(id_ or source.file.stem, title=title, id_=id_)


def _blocks(content: Iterable[Any]) -> Iterator[Any]:
    """Yield the blocks that the model sees."""
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "toolResponse":
            yield {**block, "toolResult": _for_the_model(block.get("toolResult"))}
        elif kind not in _FOR_THE_SCREEN:
            renamed = {"type": _KINDS[kind]} if kind in tuple(_KINDS) else {}
            yield {**block, **renamed} if renamed else block


def _for_the_model(result: Any) -> Any:
    """Return a tool's result without what is for the user alone."""
    value = result.get("value") if isinstance(result, dict) else None
    held = value.get("content") if isinstance(value, dict) else value
    if not isinstance(held, list):
        return result
    return {**result, "value": [it for it in held if _is_for_the_model(it)]}


def _is_for_the_model(block: Any) -> bool:
    annotations = block.get("annotations") if isinstance(block, dict) else None
    audience = annotations.get("audience") if isinstance(annotations, dict) else None
    return not isinstance(audience, list) or "assistant" in audience
