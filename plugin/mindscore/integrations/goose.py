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

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the sessions that have messages, each with what the model sees of it.

        Raises:
            TranscriptError: the file is not valid.
        """

        def conversation(_: str, where: str, session: Mapping[str, Any]) -> Conversation:
            return _conversation(source, where, session)

        held = _stored(source) if source.is_sqlite else _written(source)
        return filter(lambda it: it.messages, source.read_each(held, conversation))


def _stored(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sessions of a database, as an export has them."""
    with source.database() as connection:
        query = "SELECT * FROM messages WHERE session_id = ? ORDER BY id"
        for session in connection.execute("SELECT * FROM sessions ORDER BY rowid"):
            messages: list[dict[str, Any]] = []
            for row in map(dict, connection.execute(query, (session["id"],))):
                place = f"message {row['id']}"
                with source.leaving_out(), source.placed(place):
                    message = {
                        "id": row.get("message_id"),
                        "role": row.get("role"),
                        "created": row.get("created_timestamp"),
                        "content": json.loads(row["content_json"]),
                        "metadata": json.loads(row.get("metadata_json") or "null"),
                    }
                    messages.append({**message, "place": place})
            yield f"session {session['id']}", {**dict(session), "conversation": messages}


def _written(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sessions of exports, or the one whose messages are lines, named by its file."""
    messages: list[dict[str, Any]] = []
    head: dict[str, Any] = {}
    for where, record in source.objects():
        if isinstance(record.get("conversation"), list):
            yield where, record
        elif "working_dir" in record and "role" not in record:
            head = record
        else:
            messages.append({**record, "place": where})
    if messages:
        yield "the file", {**head, "id": source.file.stem, "conversation": messages}


def _conversation(source: Source, where: str, session: Mapping[str, Any]) -> Conversation:
    reading = Reading(source)
    for at, given in enumerate(session["conversation"], start=1):
        message = given if isinstance(given, dict) else {}
        place = message.get("place", f"{where}, message {at}")
        with reading.leaving_out(place):
            metadata = message.get("metadata")
            if isinstance(metadata, dict) and metadata.get("agentVisible") is False:
                reading.leave_out("messages that are hidden from the model")
                continue
            content = message.get("content")
            blocks = list(_blocks(content)) if isinstance(content, list) else content
            if content and not blocks:
                continue
            fields = {"role": message.get("role"), "content": blocks, "id": message.get("id")}
            reading.add(place, fields, timestamp=iso_time(message.get("created")))
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
