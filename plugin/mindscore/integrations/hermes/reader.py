"""hermes-agent: ``hermes sessions export`` (JSON Lines), and its ``state.db``. As of 0.19.0."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers.reading import NO_SYSTEM, Reading
from mindscore.readers.source import Source, first_text

TOOLS_UNRECORDED = (
    "Hermes does not record the definitions of the tools that it sent: the scores are of a "
    "reconstructed context"
)
PASSED_OVER = ("session_meta", "system", "", None)
"""Roles of rows that Hermes itself does not send: its marks, and prompts that it builds anew."""

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

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the sessions that have messages, in the file's order.

        Raises:
            TranscriptError: names the file, the record's place and the reason.
        """

        def conversation(_: str, where: str, session: Mapping[str, Any]) -> Conversation:
            return _conversation(source, where, session)

        held = _sessions(source) if source.is_sqlite else source.objects()
        return filter(_is_spoken, source.read_each(held, conversation, _name))


def _sessions(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sessions of a database with their rows, as an export has them."""
    with source.database() as connection:
        query = "SELECT * FROM messages WHERE session_id = ? ORDER BY id"
        for session in connection.execute("SELECT * FROM sessions ORDER BY rowid"):
            rows = [dict(it) for it in connection.execute(query, (session["id"],))]
            yield f"session {session['id']}", {**dict(session), "messages": rows}


def _name(session: Mapping[str, Any]) -> str:
    return "" if session.get("id") is None else str(session["id"])


def _conversation(source: Source, where: str, session: Mapping[str, Any]) -> Conversation:
    reading = Reading(source)
    system, title, named = session.get("system_prompt"), session.get("title"), _name(session)
    if system:
        reading.add(where, {"role": "system", "content": system})
    rows = session.get("messages")
    if not isinstance(rows, list):
        source.refuse(where, "'messages': expected a list")
    for at, row in enumerate(rows, start=1):
        number = row.get("id", at) if isinstance(row, dict) else at
        place = f"{where}, message {at}" if not source.is_sqlite else f"message {number}"
        with source.leaving_out():
            _add(reading, place, row)
    told = (TOOLS_UNRECORDED,) if system else (NO_SYSTEM, TOOLS_UNRECORDED)
    return reading.conversation(named, told, title=first_text(title), id_=named)


def _add(reading: Reading, place: str, row: Any) -> None:
    with reading.placed(place):
        if not isinstance(row, dict):
            raise ValueError("expected an object")
        if row.get("active", 1) == 0 or row.get("role") in PASSED_OVER:
            return
        try:
            fields, timestamp = _fields(row), _timestamp(row.get("timestamp"))
        except (OverflowError, OSError) as error:
            raise ValueError(str(error)) from None
    reading.add(place, fields, timestamp=timestamp)


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
