"""pi, and OpenClaw, which keeps its sessions as pi does: trees of entries, one a line.

Tried with pi 0.73; OpenClaw's files are read by the same shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source, first_text

_NOT_SENT = ("model_change", "thinking_level_change", "custom", "label", "session_info", "session")
"""Types of entries that are no part of the prompt."""

BARE_SUMMARIES = "summaries stand alone where pi introduces them with a sentence"


class SessionEntry(NamedTuple):
    """One entry, with its place and the id of the one before it."""

    where: str
    id: str
    parent: str
    fields: Mapping[str, Any]


class PiReader:
    """Reads ``~/.pi/agent/sessions/*/*.jsonl`` and ``~/.openclaw/agents/*/sessions/*.jsonl``."""

    def detects(self, source: Source) -> bool:
        """Return true if the first line is the head of a session."""
        first = source.first
        if not isinstance(first, dict) or first.get("type") != "session":
            return False
        return isinstance(first.get("id"), str) and isinstance(first.get("cwd"), str)

    def read(self, source: Source) -> list[Conversation]:
        """Return the conversation that leads to the last entry.

        Raises:
            TranscriptError: nothing in the file can be read.
        """
        reading = Reading(source)
        head: Mapping[str, Any] = {}
        entries: dict[str, SessionEntry] = {}
        last, title = "", ""
        for where, fields in source.objects():
            if fields.get("type") == "session":
                head = head or fields
                continue
            if fields.get("type") == "session_info":
                title = first_text(fields.get("name"))
            # The first version has no ids: a line follows the one before it.
            id_ = first_text(fields.get("id")) or where
            parent = first_text(fields.get("parentId")) if "id" in fields else last
            entries[id_] = SessionEntry(where, id_, parent, fields)
            last = id_
        path = _path(entries, last)
        _tell(reading, path)
        reading.require_messages()
        id_ = first_text(head.get("id"))
        if any(_kind(it) in ("compaction", "branch_summary") for it in path):
            reading.remarks.append(BARE_SUMMARIES)
        return [reading.conversation(id_ or source.file.stem, title=title, id_=id_)]


def _path(entries: Mapping[str, SessionEntry], last: str) -> list[SessionEntry]:
    """Return the entries from the first to that of the id ``last``."""
    path: list[SessionEntry] = []
    seen: set[str] = set()
    while last in entries and last not in seen:
        seen.add(last)
        path.append(entries[last])
        last = entries[last].parent
    return path[::-1]


def _in_prompt(reading: Reading, path: Sequence[SessionEntry]) -> Iterator[SessionEntry]:
    """Yield what is in the prompt: of a compaction, its summary and what it kept go first."""
    at = next((i for i in reversed(range(len(path))) if _kind(path[i]) == "compaction"), None)
    if at is None:
        yield from path
        return
    yield path[at]
    kept = path[at].fields.get("firstKeptEntryId")
    index = path[at].fields.get("firstKeptEntryIndex")
    first = next((i for i in range(at) if path[i].id == kept), at)
    if kept is None and isinstance(index, int):
        # The first version counts the entries, the head of the file included.
        first = min(max(index - 1, 0), at)
    for entry in path[:first]:
        if _kind(entry) == "message":
            reading.leave_out("messages before a compaction")
    yield from (it for it in path[first:] if _kind(it) != "compaction")


def _kind(entry: SessionEntry) -> str:
    return first_text(entry.fields.get("type"))


def _tell(reading: Reading, path: Sequence[SessionEntry]) -> None:
    calls: dict[str, str] = {}
    for entry in _in_prompt(reading, path):
        with reading.leaving_out(entry.where):
            message = _message(reading, entry)
            if message is None:
                continue
            if message.get("role") == "toolResult":
                calls.pop(first_text(message.get("toolCallId")), None)
            else:
                for call, name in calls.items():
                    # So pi answers a call that has no result.
                    answer = {"role": "tool", "content": "No result provided", "name": name}
                    reading.add(entry.where, {**answer, "tool_call_id": call})
                calls = {}
            when, before = entry.fields.get("timestamp"), len(reading.messages)
            reading.add(entry.where, {**message, "id": entry.id}, timestamp=when)
            said = (call for it in reading.messages[before:] for call in it.tool_calls)
            calls |= {it.id: it.name for it in said if it.id}


def _message(reading: Reading, entry: SessionEntry) -> dict[str, Any] | None:
    """Return the message that the model gets of an entry; ``None`` if it gets none."""
    kind, fields = _kind(entry), entry.fields
    if kind in ("compaction", "branch_summary"):
        return {"role": "user", "content": f"<summary>\n{fields.get('summary')}\n</summary>"}
    if kind == "custom_message":
        return {"role": "user", "content": fields.get("content")}
    if kind != "message":
        if kind not in _NOT_SENT:
            reading.leave_out(f"entries of type {kind or 'none'}")
        return None
    message = fields.get("message")
    if not isinstance(message, dict):
        raise ValueError("expected a message")
    role = message.get("role")
    if role == "bashExecution":
        return None if message.get("excludeFromContext") else _command(message)
    if role in ("custom", "hookMessage"):
        return {"role": "user", "content": message.get("content")}
    if role in ("branchSummary", "compactionSummary"):
        return {"role": "user", "content": f"<summary>\n{message.get('summary')}\n</summary>"}
    if message.get("stopReason") in ("error", "aborted"):
        reading.leave_out("responses that failed or were stopped")
        return None
    return message


def _command(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a command that the user ran as the model is told of it."""
    output, code = first_text(message.get("output")), message.get("exitCode")
    text = f"Ran `{message.get('command')}`\n" + (
        f"```\n{output}\n```" if output else "(no output)"
    )
    if message.get("cancelled"):
        text += "\n\n(command cancelled)"
    elif code:
        text += f"\n\nCommand exited with code {code}"
    return {"role": "user", "content": text}
