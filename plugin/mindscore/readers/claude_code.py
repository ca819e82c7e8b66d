"""Claude Code: the session files under ``~/.claude/projects``, an event a line.

The format is internal to Claude Code and changes: what is not known of it is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from mindscore.chat.conversation import Conversation
from mindscore.readers.claude_events import Event, Session
from mindscore.readers.reading import Reading, kind_of, tool_call
from mindscore.readers.source import Source

SYNTHETIC = "<synthetic>"
"""The model of what Claude Code itself says in its place, such as that the API failed."""

NOT_RECORDED = (
    "Claude Code records neither its system prompt nor its tools, and memories stand alone where "
    "it wraps them in reminders: the scores are of a reconstructed context"
)
NO_START = "the file does not record which memories (CLAUDE.md) the session started with"


class ClaudeCodeReader:
    """Reads a session; its memories are the files that Claude Code attached, under their paths."""

    name = "claude-code"

    def detects(self, source: Source) -> bool:
        """Whether the first line that is part of the session's tree has its two ids."""
        for line in source.content.split(b"\n"):
            if not line.strip():
                continue
            try:
                event = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return False
            # Others go before it: titles, queues, snapshots of files.
            if not isinstance(event, dict) or not isinstance(event.get("type"), str):
                return False
            if "parentUuid" in event:
                return "sessionId" in event
        return False

    def read(self, source: Source) -> list[Conversation]:
        """The session's conversation as it stands at its last message.

        Raises:
            TranscriptError: names the line that is damaged, or says that there is no message.
        """
        return [_Told(source).conversation()]


class _Told:
    """The conversation of a session, as it is put together."""

    def __init__(self, source: Source) -> None:
        self._session = Session(source)
        self._source = source
        self._reading = Reading(source)
        self._start_told = False

    def conversation(self) -> Conversation:
        chain = self._session.chain()
        for event, blocks in self._turns(chain):
            with self._reading.placed(event.where):
                self._take(event, blocks)
        remarks = [NOT_RECORDED, *([] if self._start_told else [NO_START])]
        if chain[0].parent is not None:
            remarks.append(f"what was before line {chain[0].line} is not in the file")
        name = chain[-1].fields.get("sessionId")
        return self._reading.told(
            name if isinstance(name, str) and name else self._source.file.stem,
            remarks,
            title=self._session.title,
        )

    def _turns(self, chain: list[Event]) -> list[tuple[Event, list[dict[str, Any]]]]:
        """The events with what they say, the lines of one response made one."""
        turns: list[tuple[Event, list[dict[str, Any]]]] = []
        responses: dict[str, list[dict[str, Any]]] = {}
        for event in self._session.with_parallel_calls(chain):
            with self._reading.placed(event.where):
                blocks = event.blocks() if event.speaks else []
                said = responses.setdefault(event.response, blocks) if event.responds else blocks
            if said is blocks:
                turns.append((event, blocks))
            else:
                said += blocks
        return turns

    def _take(self, event: Event, blocks: list[dict[str, Any]]) -> None:
        when = event.fields.get("timestamp")
        if event.type == "attachment":
            for key, text in self._memories(event.fields.get("attachment")):
                self._reading.add_memory(event.where, key, text, timestamp=when)
        elif event.fields.get("isMeta"):
            self._reading.leave_out("messages that Claude Code marks as its own")
        elif event.responds and event.message.get("model") == SYNTHETIC:
            self._reading.leave_out("messages of Claude Code's in the model's place")
        elif event.responds:
            self._respond(event, blocks, when)
        elif event.speaks:
            for fields in _asked(blocks):
                self._reading.add(event.where, {**fields, "id": event.uuid}, timestamp=when)

    def _respond(self, event: Event, blocks: list[dict[str, Any]], when: Any) -> None:
        calls = [it for it in blocks if it.get("type") == "tool_use"]
        if not calls and not any(it.get("type") == "text" for it in blocks):
            self._reading.leave_out("responses that say nothing")
            return
        fields = {
            "role": "assistant",
            "content": blocks,
            "tool_calls": [tool_call(it.get("name"), it.get("input")) for it in calls],
            "id": event.uuid,
        }
        self._reading.add(event.where, fields, timestamp=when)

    def _memories(self, attachment: Any) -> Iterator[tuple[str, str]]:
        """The keys and texts of an attachment that holds memories."""
        if not isinstance(attachment, dict):
            raise ValueError(f"'attachment': expected an object, got {kind_of(attachment)}")
        kind = attachment.get("type")
        files: Any
        if kind == "nested_memory":
            held = attachment.get("content")
            files = [{**held, "path": attachment.get("path")}] if isinstance(held, dict) else None
        elif kind == "instructions":
            files, self._start_told = attachment.get("files"), True
        elif kind == "relevant_memories":
            files = attachment.get("memories")
        else:
            self._reading.leave_out(f"attachments of type {kind}")
            return
        for file in files if isinstance(files, list) else [files]:
            path = file.get("path") if isinstance(file, dict) else None
            text = file.get("content") if isinstance(file, dict) else None
            if not isinstance(path, str) or not path or not isinstance(text, str):
                raise ValueError(f"'attachment': {kind} expects files of a path and content")
            yield path, text


def _asked(blocks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A message for each result of a tool, and one for what the user says before and behind."""
    said: list[dict[str, Any]] = []
    for block in blocks:
        if block.get("type") != "tool_result":
            said.append(block)
            continue
        if said:
            yield {"role": "user", "content": said}
            said = []
        yield {"role": "tool", "content": block.get("content")}
    if said:
        yield {"role": "user", "content": said}
