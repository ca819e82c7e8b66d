"""hermes-agent: ``hermes sessions export`` (JSON Lines), and its ``state.db``. As of 0.19.0."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers.reading import NO_SYSTEM, Reading
from mindscore.readers.source import Source

TOOLS_UNRECORDED = (
    "Hermes does not record the definitions of the tools that it sent: the scores are of a "
    "reconstructed context"
)
_STRUCTURED = "\x00json:"
"""The prefix of content that is not text."""


class HermesReader:
    """Reads sessions: each is a conversation, named by its id."""

    def detects(self, source: Source) -> bool:
        """Say whether it is an export of sessions, or a database of them."""
        if not source.is_sqlite:
            first = source.sample
            return isinstance(first, dict) and {"system_prompt", "messages"} <= first.keys()
        with source.database() as connection:
            return "system_prompt" in _columns(connection, "sessions") and {
                "session_id",
                "role",
                "content",
            } <= _columns(connection, "messages")

    def read(self, source: Source) -> list[Conversation]:
        """Read the sessions that have messages, in the file's order.

        Raises:
            TranscriptError: names the file, the record's place and the reason.
        """
        if source.is_sqlite:
            return _database(source)
        sessions = []
        for where, session in source.objects():
            messages = session.get("messages")
            if not isinstance(messages, list):
                source.refuse(where, "'messages': expected a list")
            rows = [(f"{where}, message {at}", it) for at, it in enumerate(messages, start=1)]
            sessions.append(_conversation(source, where, session, rows))
        return list(filter(_is_spoken, sessions))


def _database(source: Source) -> list[Conversation]:
    with source.database() as connection:
        held: dict[Any, list[tuple[str, Any]]] = {}
        for row in connection.execute("SELECT * FROM messages ORDER BY id"):
            held.setdefault(row["session_id"], []).append((f"message {row['id']}", dict(row)))
        sessions = [
            dict(row) for row in connection.execute("SELECT * FROM sessions ORDER BY rowid")
        ]
    read = [
        _conversation(source, f"session {it['id']}", it, held[it["id"]])
        for it in sessions
        if it["id"] in held
    ]
    return list(filter(_is_spoken, read))


def _conversation(
    source: Source,
    where: str,
    session: Mapping[str, Any],
    rows: list[tuple[str, Any]],
) -> Conversation:
    reading = Reading(source)
    system, title = session.get("system_prompt"), session.get("title")
    if system:
        reading.add(where, {"role": "system", "content": system})
    for place, row in rows:
        if not isinstance(row, dict):
            source.refuse(place, "expected an object")
        if row.get("active", 1) == 0:
            continue
        try:
            fields, timestamp = _fields(row), _timestamp(row.get("timestamp"))
        except (ValueError, OverflowError, OSError) as error:
            source.refuse(place, error)
        reading.add(place, fields, timestamp=timestamp)
    told = (TOOLS_UNRECORDED,) if system else (NO_SYSTEM, TOOLS_UNRECORDED)
    return reading.conversation(
        str(session.get("id", "")),
        told,
        title=title if isinstance(title, str) else "",
        id_=str(session.get("id", "")),
    )


def _is_spoken(conversation: Conversation) -> bool:
    return any(message.role != "system" for message in conversation.messages)


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as a chat message, with what was sent if something else is shown."""
    sent = row.get("api_content") if row.get("role") in ("user", "assistant") else None
    content, calls = sent or row.get("content"), row.get("tool_calls")
    if isinstance(content, str) and content.startswith(_STRUCTURED):
        content = json.loads(content.removeprefix(_STRUCTURED))
    fields = {**row, "content": content, "id": str(row.get("id", ""))}
    fields["tool_calls"] = json.loads(calls) if isinstance(calls, str) and calls else calls
    return fields


def _timestamp(seconds: Any) -> str | None:
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    if seconds is None or isinstance(seconds, str):
        return seconds
    raise ValueError("'timestamp': expected seconds")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}
