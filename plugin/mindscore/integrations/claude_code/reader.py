"""Claude Code: the session files under ``~/.claude/projects``, an event a line.

The format is internal to Claude Code and changes, so that unknown events are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.integrations import qwen_code
from mindscore.integrations.claude_code.session import QUEUED, Event, SessionFile
from mindscore.readers.arrays import PEEKED
from mindscore.readers.reading import Reading
from mindscore.readers.source import Source, first_text, kind_of

SYNTHETIC = "<synthetic>"
"""The model named in messages of Claude Code itself, such as that the API failed."""

NOT_RECORDED = (
    "Claude Code records neither its system prompt nor its tools, and memories stand alone where "
    "it wraps them in reminders: the scores are of a reconstructed context"
)
NO_START = "the file does not record which memories (CLAUDE.md) the session started with"
NAMELESS = "conversations of subagents that have no name"
LOST = "queued messages that the model may not have seen"


class ClaudeCodeReader:
    """Reads a session and its subagents, each a conversation of its own.

    Memories are the files that Claude Code attached, under their paths.
    """

    def detects(self, source: Source) -> bool:
        """Say whether the first line of the session's tree has its two ids."""
        broken = 0
        for event in source.peek_lines():
            if event is None and broken < PEEKED:
                broken += 1
                continue
            # Others go before it: titles, queues, snapshots of files.
            if not isinstance(event, dict) or not isinstance(event.get("type"), str):
                return False
            if "parentUuid" in event:
                return "sessionId" in event and not qwen_code.is_record(event)
        return False

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the session's conversation as it stands at its last message, then its subagents'.

        Raises:
            TranscriptError: says that there is no message, or that the events form a circle.
        """
        session = SessionFile(source)
        tracks = session.tracks()
        if not tracks:
            source.refuse_empty("holds no messages")
        for agent, track in tracks.items():
            yield _Builder(source, session, agent, track).conversation()


class _Builder:
    """The builder of a session's conversation, or of that of one of its subagents."""

    def __init__(
        self, source: Source, session: SessionFile, agent: str, track: list[Event]
    ) -> None:
        self._source, self._session = source, session
        self._agent, self._track = agent, track
        self._reading = Reading(source)
        self._start_told = False

    def conversation(self) -> Conversation:
        chain = self._session.chain(self._track)
        for event, blocks in self._turns(chain):
            with self._source.leaving_out(), self._reading.placed(event.where):
                self._take(event, blocks)
        remarks = [NOT_RECORDED, *([] if self._start_told else [NO_START])]
        if self._session.begins_before(chain[0]):
            remarks.append(f"what was before line {chain[0].line} is not in the file")
        if not self._agent:
            for what, number in ((LOST, self._session.lost), (NAMELESS, self._session.nameless)):
                for _ in range(number):
                    self._reading.leave_out(what)
        id_ = first_text(chain[-1].fields.get("sessionId"))
        if self._agent:
            title = f"subagent {self._agent}"
            id_ = f"{id_}/{self._agent}" if id_ else ""
            return self._reading.conversation(self._agent, remarks, title=title, id_=id_)
        name = id_ or self._source.file.stem
        return self._reading.conversation(name, remarks, title=self._session.title, id_=id_)

    def _turns(self, chain: list[Event]) -> list[tuple[Event, list[dict[str, Any]]]]:
        """Return the events with their blocks, the lines of one response merged.

        What the user wrote meanwhile stands after the tools' results, before the next response.
        """
        turns: list[tuple[Event, list[dict[str, Any]]]] = []
        responses: dict[str, list[dict[str, Any]]] = {}
        waiting: list[tuple[Event, list[dict[str, Any]]]] = []
        for event in self._session.with_parallel_calls(chain, self._track):
            blocks = event.blocks() if event.speaks else []
            said = responses.setdefault(event.response, blocks) if event.responds else blocks
            if event.attachment.get("type") == QUEUED:
                waiting.append((event, []))
            elif said is blocks:
                if event.speaks and not event.answers():
                    turns += waiting
                    waiting = []
                turns.append((event, blocks))
            else:
                # Some lines repeat what earlier ones of the response said.
                said += [it for it in blocks if it not in said]
            waiting += [(it, []) for it in self._session.queued.get(event.uuid, ())]
        return turns + waiting

    def _take(self, event: Event, blocks: list[dict[str, Any]]) -> None:
        when = event.fields.get("timestamp")
        if event.type == "queue-operation" or event.attachment.get("type") == QUEUED:
            said = event.attachment.get("prompt", event.fields.get("content"))
            fields = {"role": "user", "content": said, "id": event.uuid}
            self._reading.add(event.where, fields, timestamp=when)
        elif event.type == "attachment":
            for key, text in self._memories(event.fields.get("attachment")):
                self._reading.add_memory(event.where, key, text, timestamp=when)
        elif event.fields.get("isMeta"):
            self._reading.leave_out("messages that Claude Code marks as its own")
        elif event.responds and event.message.get("model") == SYNTHETIC:
            self._reading.leave_out("messages of Claude Code's in the model's place")
        elif event.speaks:
            fields = {"role": event.type, "content": blocks, "id": event.uuid}
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
