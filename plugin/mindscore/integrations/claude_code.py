"""Claude Code: the session files under ``~/.claude/projects``, an event a line.

The format is internal to Claude Code and changes, so that unknown events are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from mindscore.conversation.conversation import Conversation
from mindscore.readers.reading import Reading
from mindscore.readers.source import Source, first_text, kind_of


class Event(NamedTuple):
    """A line of the tree."""

    line: int
    uuid: str
    parent: str | None
    fields: dict[str, Any]

    @property
    def where(self) -> str:
        """The place in the file."""
        return f"line {self.line}"

    @property
    def type(self) -> str:
        """The kind: ``user``, ``assistant``, ``attachment`` or any other."""
        return str(self.fields.get("type"))

    @property
    def speaks(self) -> bool:
        """Say whether it is a message of the conversation itself."""
        aside = self.fields.get("isSidechain") or self.fields.get("isMeta")
        return self.type in ("user", "assistant") and not aside

    @property
    def responds(self) -> bool:
        """Say whether it is a message of the model's."""
        return self.speaks and self.type == "assistant"

    @property
    def message(self) -> dict[str, Any]:
        """The message to the model or from it.

        Raises:
            ValueError: the line has none.
        """
        message = self.fields.get("message")
        if not isinstance(message, dict):
            raise ValueError(f"'message': expected an object, got {kind_of(message)}")
        return message

    @property
    def response(self) -> str:
        """The name that several lines of one response share."""
        name = self.message.get("id")
        return name if isinstance(name, str) and name else self.uuid

    def blocks(self) -> list[dict[str, Any]]:
        """Return the blocks of its content.

        Raises:
            ValueError: the line does not hold it.
        """
        content = self.message.get("content")
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        if not isinstance(content, list) or not all(isinstance(it, dict) for it in content):
            raise ValueError("'message.content': expected text, or an array of blocks")
        return list(content)

    def answers(self) -> set[str]:
        """Return the ids of the tool calls whose results it brings."""
        results = [it for it in self.blocks() if it.get("type") == "tool_result"]
        return {str(it.get("tool_use_id")) for it in results}


class SessionFile:
    """All events of a file.

    Raises:
        TranscriptError: names the line that is no event.
    """

    def __init__(self, source: Source) -> None:
        self.title = ""
        self._source = source
        self._events: dict[str, Event] = {}
        for line, record in source.records():
            if not isinstance(record, dict):
                source.refuse(f"line {line}", f"expected an object, got {kind_of(record)}")
            self._note(line, record)

    def _note(self, line: int, record: dict[str, Any]) -> None:
        for kind, field in (("summary", "summary"), ("custom-title", "customTitle")):
            if record.get("type") == kind and isinstance(record.get(field), str):
                self.title = record[field]
        uuid, parent = record.get("uuid"), record.get("parentUuid")
        if isinstance(uuid, str) and (parent is None or isinstance(parent, str)):
            self._events[uuid] = Event(line, uuid, parent, record)
        elif record.get("type") in ("user", "assistant"):
            field = "parentUuid" if isinstance(uuid, str) else "uuid"
            self._source.refuse(f"line {line}", f"'{field}': expected text")

    def chain(self) -> list[Event]:
        """Return the events that lead to the last message, from the first that the file has.

        Raises:
            TranscriptError: there is no message, or the parents form a circle.
        """
        last = next((it for it in reversed(self._events.values()) if it.speaks), None)
        if last is None:
            self._source.refuse("the file", "holds no messages")
        chain, seen = [last], {last.uuid}
        while (event := self._events.get(chain[-1].parent or "")) is not None:
            if event.uuid in seen:
                self._source.refuse(event.where, "'parentUuid' leads in a circle")
            chain.append(event)
            seen.add(event.uuid)
        return chain[::-1]

    def with_parallel_calls(self, chain: list[Event]) -> Iterator[Event]:
        """Yield the chain, with the events of parallel tool calls that are beside it.

        Each call is a line of its own and the parent of its result; the next message has only one
        of the results as its parent.

        Raises:
            TranscriptError: names the line that is damaged.
        """
        on_chain = {event.uuid for event in chain}
        ends: dict[str, int] = {}
        answered: set[str] = set()
        for at, event in enumerate(chain):
            with self._source.placed(event.where):
                if event.responds:
                    ends[event.response] = at
                elif event.speaks:
                    answered |= event.answers()
        beside: dict[int, list[Event]] = {}
        lines: dict[str | None, int] = {}
        for event in self._events.values():
            with self._source.placed(event.where):
                if event.responds and event.response in ends:
                    lines[event.uuid] = ends[event.response]
                    found = event.uuid not in on_chain
                elif event.speaks and not event.responds and event.parent in lines:
                    lines[event.uuid] = lines[event.parent]
                    answers = event.answers()
                    found = bool(answers) and not answers & answered
                    answered |= answers
                else:
                    continue
            if found:
                beside.setdefault(lines[event.uuid], []).append(event)
        for at, event in enumerate(chain):
            yield event
            yield from beside.get(at, ())


SYNTHETIC = "<synthetic>"
"""The model named in messages of Claude Code itself, such as that the API failed."""

NOT_RECORDED = (
    "Claude Code records neither its system prompt nor its tools, and memories stand alone where "
    "it wraps them in reminders: the scores are of a reconstructed context"
)
NO_START = "the file does not record which memories (CLAUDE.md) the session started with"


class ClaudeCodeReader:
    """Reads a session; its memories are the files that Claude Code attached, under their paths."""

    def detects(self, source: Source) -> bool:
        """Say whether the first line of the session's tree has its two ids."""
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
        """Read the session's conversation as it stands at its last message.

        Raises:
            TranscriptError: names the line that is damaged, or says that there is no message.
        """
        return [_Builder(source).conversation()]


class _Builder:
    """The builder of a session's conversation."""

    def __init__(self, source: Source) -> None:
        self._session = SessionFile(source)
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
        id_ = first_text(chain[-1].fields.get("sessionId"))
        return self._reading.conversation(
            id_ or self._source.file.stem, remarks, title=self._session.title, id_=id_
        )

    def _turns(self, chain: list[Event]) -> list[tuple[Event, list[dict[str, Any]]]]:
        """Return the events with their blocks, the lines of one response merged."""
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
            fields = {"role": "user", "content": blocks, "id": event.uuid}
            self._reading.add(event.where, fields, timestamp=when)

    def _respond(self, event: Event, blocks: list[dict[str, Any]], when: Any) -> None:
        fields = {"role": "assistant", "content": blocks, "id": event.uuid}
        self._reading.add(event.where, fields, timestamp=when)

    def _memories(self, attachment: Any) -> Iterator[tuple[str, str]]:
        """Yield the keys and texts of an attachment that holds memories."""
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
