"""OpenCode: ``opencode export``, and its database. Tried with 1.18.33."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source, first_text
from mindscore.readers.reading import iso_time

_TABLES = {"session": {"id", "revert"}, "message": {"session_id", "data"}, "part": {"message_id"}}
"""Tables of the database, each with some of its columns."""

_NOT_SENT = ("step-finish", "snapshot", "patch", "agent", "retry", "compaction", "subtask")
"""Parts that are no text of their own in the prompt, or are read by ``_asked``."""

Said = tuple[str, Mapping[str, Any], Sequence[Mapping[str, Any]]]
"""The place of a message, its own fields, and its parts."""


class OpenCodeReader:
    """Reads sessions: each is a conversation, named by its id."""

    def detects(self, source: Source) -> bool:
        """Return true if it is an export of a session, or a database of them."""
        if source.is_sqlite:
            with source.database() as connection:
                return all(
                    names <= {row["name"] for row in connection.execute(f"PRAGMA table_info({it})")}
                    for it, names in _TABLES.items()
                )
        first = source.sample
        if not isinstance(first, dict) or not isinstance(first.get("info"), dict):
            return False
        messages = first.get("messages")
        return isinstance(messages, list) and all(
            isinstance(it, dict) and {"info", "parts"} <= it.keys() for it in messages[:1]
        )

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the sessions that have messages, as they stand at their ends.

        Raises:
            TranscriptError: the file is not valid.
        """

        def conversation(_: str, where: str, session: Mapping[str, Any]) -> Conversation:
            return _conversation(source, where, session)

        held = _stored(source) if source.is_sqlite else _exported(source)
        return filter(lambda it: it.messages, source.read_each(held, conversation))


def _exported(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, record in source.objects():
        yield where, {**record, "id": _object(record.get("info")).get("id")}


def _stored(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sessions of a database, as an export has them."""
    with source.database() as connection:
        said = "SELECT * FROM message WHERE session_id = ? ORDER BY time_created, id"
        of_session = "SELECT * FROM part WHERE session_id = ? ORDER BY id"
        for session in connection.execute("SELECT * FROM session ORDER BY rowid"):
            parts: dict[str, list[Mapping[str, Any]]] = {}
            for row in connection.execute(of_session, (session["id"],)):
                parts.setdefault(row["message_id"], []).append(_data(source, "part", row))
            messages: list[dict[str, Any]] = []
            for row in connection.execute(said, (session["id"],)):
                own = {**_data(source, "message", row), "id": row["id"]}
                held, place = parts.get(row["id"], []), f"message {row['id']}"
                messages.append({"info": own, "parts": held, "place": place})
            info = {**dict(session), "revert": _decoded(session["revert"])}
            if messages:
                where = f"session {session['id']}"
                yield where, {"id": session["id"], "info": info, "messages": messages}


def _data(source: Source, noun: str, row: sqlite3.Row) -> dict[str, Any]:
    found = _decoded(row["data"])
    if isinstance(found, dict):
        return found
    source.leave_out(f"{noun} {row['id']}", "is not valid JSON")
    return {}


def _decoded(text: Any) -> Any:
    try:
        return json.loads(text)
    except (RecursionError, TypeError, ValueError):
        return None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _conversation(source: Source, where: str, session: Mapping[str, Any]) -> Conversation:
    reading = Reading(source)
    messages: list[Said] = []
    for place, it in source.items(where, "messages", session.get("messages"), "message"):
        parts = it.get("parts")
        held = [_object(part) for part in parts] if isinstance(parts, list) else []
        messages.append((it.get("place", place), _object(it.get("info")), held))
    info = _object(session.get("info"))
    for said in _in_prompt(reading, _object(info.get("revert")), messages):
        with reading.leaving_out(said[0]):
            _tell(reading, *said)
    id_ = first_text(info.get("id"))
    return reading.conversation(
        id_ or source.file.stem, title=first_text(info.get("title")), id_=id_
    )


def _in_prompt(
    reading: Reading, revert: Mapping[str, Any], messages: Sequence[Said]
) -> Sequence[Said]:
    """Return the messages from the last compaction on, and up to where the user went back."""
    ids = [own.get("id") for _, own, _ in messages]
    if (to := revert.get("messageID")) in ids:
        for _ in messages[ids.index(to) :]:
            reading.leave_out("messages that were taken back")
        messages = messages[: ids.index(to)]
    sums = {
        str(own.get("parentID")): at
        for at, (_, own, _) in enumerate(messages)
        if own.get("summary") is True and own.get("finish") and not own.get("error")
    }
    asked = [
        at
        for at, (_, own, parts) in enumerate(messages)
        if own.get("role") == "user"
        and at < sums.get(str(own.get("id")), 0)
        and any(it.get("type") == "compaction" for it in parts)
    ]
    if not asked:
        return messages
    # The summary goes first, then the messages that it kept.
    at = asked[-1]
    end = sums[str(ids[at])] + 1
    tail = next(it.get("tail_start_id") for it in messages[at][2] if it.get("type") == "compaction")
    first = ids.index(tail) if tail in ids[:at] else at
    for _ in messages[:first]:
        reading.leave_out("messages before a compaction")
    return [*messages[at:end], *messages[first:at], *messages[end:]]


def _tell(
    reading: Reading, where: str, own: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]
) -> None:
    role, id_ = own.get("role"), own.get("id")
    created = _object(own.get("time")).get("created")
    when = iso_time(created / 1000 if isinstance(created, int | float) else None)
    failed = _object(own.get("error"))
    if not parts:
        return
    says = any(it.get("type") not in ("step-start", "reasoning") for it in parts)
    if failed and not (failed.get("name") == "MessageAbortedError" and says):
        reading.leave_out("responses that failed")
        return
    if own.get("summary") is True:
        reading.remarks.append(f"{where}: a summary stands where a response would")
    asks = role == "user"
    blocks = [it for part in parts for it in (_asked(part) if asks else _answered(reading, part))]
    reading.add(where, {"role": role, "content": blocks, "id": id_}, timestamp=when)


def _asked(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what the model gets of a part of the user's."""
    kind = part.get("type")
    if kind == "compaction":
        yield {"type": "text", "text": "What did we do so far?"}
    elif kind == "subtask":
        yield {"type": "text", "text": "The following tool was executed by the user"}
    elif kind == "file":
        # Texts and folders stand in parts of their own.
        if part.get("mime") not in ("text/plain", "application/x-directory"):
            yield part
    elif kind != "text" or not part.get("ignored"):
        yield from _usual(part)


def _answered(reading: Reading, part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what the model gets of a part of its own."""
    if part.get("type") != "tool":
        yield from _usual(part)
        return
    state = _object(part.get("state"))
    call = {"type": "dynamic-tool", "toolName": part.get("tool"), "toolCallId": part.get("callID")}
    yield {**call, "input": state.get("input"), "output": _output(state)}
    for _ in state.get("attachments") or ():
        reading.leave_out("images and files that tools returned")


def _output(state: Mapping[str, Any]) -> Any:
    """Return what OpenCode tells the model of a call."""
    if state.get("status") == "completed":
        cleared = _object(state.get("time")).get("compacted")
        return "[Old tool result content cleared]" if cleared else state.get("output")
    if state.get("status") == "error":
        given = _object(state.get("metadata"))
        return given.get("output") if given.get("interrupted") is True else state.get("error")
    return "[Tool execution was interrupted]"


def _usual(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if part.get("type") not in _NOT_SENT:
        yield part
