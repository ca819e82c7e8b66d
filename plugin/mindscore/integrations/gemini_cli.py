"""Gemini CLI: its sessions and saved chats, and GEMINI.md in them. Tried with 0.61.

Sessions are a JSON object or, in newer versions, lines that also replace messages and take them
back. Its forks write the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source, first_text
from mindscore.recognisers import Block, Entry, hookimpl

_HISTORIES = ("clientHistory", "history")
"""The fields of saved chats that hold messages as the API has them; the first counts."""


class GeminiCliReader:
    """Reads ``~/.gemini/tmp/*/chats/session-*.json(l)``, and files of ``/chat save``."""

    def detects(self, source: Source) -> bool:
        """Return true if it begins as a session, or holds messages of the Gemini API."""
        first = source.first
        if isinstance(first, dict) and isinstance(first.get("sessionId"), str):
            return isinstance(first.get("projectHash"), str)
        history = _history(first) or []
        return bool(history) and all(map(_is_content, history[:2]))

    def read(self, source: Source) -> list[Conversation]:
        """Return the conversation as it stands at its end.

        Raises:
            TranscriptError: nothing in the file can be read.
        """
        reading = Reading(source)
        if _history(source.first) is not None:
            for where, content in _contents(source):
                _add(reading, where, content)
            reading.require_messages()
            return [reading.conversation(source.file.stem)]
        session, messages = _session(source, reading)
        answered = {it for message in messages.values() for it in _answers(message)}
        for message in _as_sent(list(messages.values())):
            _take(reading, message, answered)
        reading.require_messages()
        id_ = first_text(session.get("sessionId"))
        title = first_text(session.get("summary"))
        return [reading.conversation(id_ or source.file.stem, title=title, id_=id_)]


def _history(first: Any) -> list[Any] | None:
    if isinstance(first, dict):
        first = next((first[key] for key in _HISTORIES if key in first), None)
    return first if isinstance(first, list) else None


def _contents(source: Source) -> Iterator[tuple[str, Any]]:
    """Yield the messages of a saved chat with their places."""
    for where, record in source.objects():
        if (history := _history(record)) is None:
            yield where, record
        else:
            yield from ((f"message {at}", it) for at, it in enumerate(history, start=1))


def _is_content(value: Any) -> bool:
    """Say whether it is a message whose parts have no type: their only key says what they are."""
    parts = value.get("parts") if isinstance(value, dict) else None
    return (
        isinstance(parts, list)
        and value.get("role") in ("user", "model")
        and all(isinstance(it, dict) and "type" not in it for it in parts)
    )


def _session(
    source: Source, reading: Reading
) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """Return the session's own fields, and its messages by their ids."""
    session: dict[str, Any] = {}
    messages: dict[str, Mapping[str, Any]] = {}
    for where, record in source.objects():
        if isinstance(id_ := record.get("$rewindTo"), str):
            _rewind(messages, id_, reading)
        elif isinstance(record.get("id"), str):
            # It comes again, with more, where it was.
            messages[record["id"]] = {**record, "where": where}
        else:
            fields = record.get("$set", record)
            if not isinstance(fields, dict):
                reading.leave_out("records that are not understood")
                continue
            session |= fields
            if isinstance(given := fields.get("messages"), list):
                messages.clear()
                for number, it in enumerate(given, start=1):
                    place = f"{where}, message {number}"
                    id_ = first_text(it.get("id")) if isinstance(it, dict) else ""
                    fields = it if isinstance(it, dict) else {"content": it}
                    messages[id_ or place] = {**fields, "where": place}
    return session, messages


def _as_sent(messages: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the messages with the session's setting in the first question, as it is sent."""
    if len(messages) < 2 or any(it.get("type") != "user" for it in messages[:2]):
        return messages
    setting, asked = (_parts(it.get("content")) for it in messages[:2])
    begins = str(setting[0].get("text")).startswith("<session_context>") if setting else False
    if not begins or not asked:
        return messages
    return [{**messages[1], "content": [*setting, *asked]}, *messages[2:]]


def _parts(content: Any) -> list[dict[str, Any]]:
    """Return the parts of a content; none if it is text, or not all are parts."""
    if isinstance(content, list) and all(isinstance(it, dict) for it in content):
        return content
    return []


def _rewind(messages: dict[str, Mapping[str, Any]], id_: str, reading: Reading) -> None:
    """Take back the message of ``id_`` and all after it; all there are if it is not known."""
    ids = list(messages)
    for it in ids[ids.index(id_) if id_ in messages else 0 :]:
        del messages[it]
        reading.leave_out("messages that were taken back")


def _answers(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ids of the calls whose results a message of the user's brings."""
    content = message.get("content")
    for part in content if message.get("type") == "user" and isinstance(content, list) else ():
        result = part.get("functionResponse") if isinstance(part, dict) else None
        if isinstance(result, dict) and isinstance(result.get("id"), str):
            yield result["id"]


def _take(reading: Reading, message: Mapping[str, Any], answered: set[str]) -> None:
    where, kind = message["where"], message.get("type")
    said = {key: message.get(key) for key in ("id", "content")}
    if kind == "user":
        _add(reading, where, {"role": "user", **said}, message.get("timestamp"))
    elif kind == "gemini":
        calls = [it for it in message.get("toolCalls") or () if isinstance(it, dict)]
        thoughts = [_thought(it) for it in message.get("thoughts") or ()]
        response = {"role": "assistant", "tool_calls": calls, "reasoning": thoughts, **said}
        _add(reading, where, response, message.get("timestamp"))
        for call in calls:
            if call.get("id") not in answered and call.get("result") is not None:
                result = {"content": call["result"], "tool_call_id": call.get("id")}
                name = {"name": call.get("name")}
                _add(reading, where, {"role": "tool", **result, **name}, call.get("timestamp"))
    else:
        # Such as info and error: for the screen.
        reading.leave_out(f"messages of type {kind}")


def _thought(thought: Any) -> str:
    if not isinstance(thought, dict):
        return ""
    return ": ".join(
        filter(None, (first_text(thought.get(it)) for it in ("subject", "description")))
    )


def _add(reading: Reading, where: str, fields: Any, when: Any = None) -> None:
    with reading.leaving_out(where):
        if not isinstance(fields, dict):
            raise ValueError("expected a message")
        reading.add(where, fields, timestamp=when)


_LOADED = re.compile(r"\n<loaded_context>\n(?P<body>.+?)\n</loaded_context>", re.DOTALL)
_SECTION = re.compile(r"<(\w+)>\n(.+?)\n</\1>(?:\n|\Z)", re.DOTALL)
_FILE = re.compile(
    r"--- Context from: ([^\n]+) ---\n.*?\n--- End of Context from: \1 ---(?:\n\n|\Z)", re.DOTALL
)


class GeminiCli:
    """The recogniser of GEMINI.md and other context files, as 0.61 prints them; keys are paths."""

    @hookimpl
    def find_memories(self, role: str, text: str) -> Iterator[Block]:
        """Find the files in the first user message, or in the system prompt."""
        if role not in ("user", "system"):
            return
        for found in _LOADED.finditer(text):
            sections = [(it[1], _files(it[2])) for it in _SECTION.finditer(found["body"])]
            entries = tuple(entry for _, files in sections for entry in files)
            if entries and found[0] == _printed(sections, frozenset()):
                yield _block(found, sections, entries)


def _files(body: str) -> list[Entry]:
    return [Entry(it[1], it[0].removesuffix("\n\n")) for it in _FILE.finditer(body)]


def _block(
    found: re.Match[str], sections: list[tuple[str, list[Entry]]], entries: tuple[Entry, ...]
) -> Block:
    return Block(found.start(), found.end(), entries, lambda skipped: _printed(sections, skipped))


def _printed(sections: list[tuple[str, list[Entry]]], skipped: frozenset[str]) -> str:
    """Return the section as it is printed without some files: nothing if none is left."""
    left = []
    for tag, files in sections:
        if texts := [it.text for it in files if it.key not in skipped]:
            body = "\n\n".join(texts)
            left.append(f"<{tag}>\n{body}\n</{tag}>")
    body = "\n".join(left)
    return f"\n<loaded_context>\n{body}\n</loaded_context>" if left else ""
