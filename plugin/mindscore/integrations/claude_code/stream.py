"""The output of ``claude -p --output-format stream-json``, an event a line or in an array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mindscore.conversation.conversation import Conversation
from mindscore.integrations.claude_code.reader import SYNTHETIC
from mindscore.readers.reading import Reading
from mindscore.readers.source import Source, first_text

NOT_PRINTED = (
    "claude -p prints neither the system prompt, nor the definitions of the tools, nor memories: "
    "the scores are of a reconstructed context"
)
NO_PROMPT = (
    "claude -p does not print the prompt that it was given: the conversation begins after it"
)
COMPACTED = (
    "the conversation was compacted: what was before is not in the context, and the summary in its "
    "place is not printed"
)
TYPES = ("system", "user", "assistant", "result", "stream_event", "rate_limit_event")
"""The types that are known; of these, the messages are read, and the others say nothing else."""


class ClaudeStreamReader:
    """Reads a run and its subagents, which are named by the call that started them."""

    def detects(self, source: Source) -> bool:
        """Say whether it begins with an event of such a run."""
        first = source.sample
        if not isinstance(first, dict) or "parentUuid" in first:
            return False
        told = "subtype" in first if first.get("type") == "system" else "message" in first
        return told and first.get("type") in TYPES and isinstance(first.get("session_id"), str)

    def read(self, source: Source) -> Iterator[Conversation]:
        """Yield the run's conversation, then those of its subagents.

        Raises:
            TranscriptError: no message is valid; the text says why.
        """
        tracks: dict[str, _Track] = {}
        run = _Track(source, "")
        for where, event in source.objects():
            run.name = run.name or first_text(event.get("session_id"))
            call = first_text(event.get("parent_tool_use_id"))
            track = tracks.setdefault(call, _Track(source, call)) if call else run
            track.take(where, event)
        found = [it.conversation(run.name) for it in (run, *tracks.values())]
        found = [it for it in found if it.messages]
        if not found:
            source.refuse_empty("holds no messages")
        yield from found


class _Track:
    """The messages of a run, or of one of its subagents."""

    def __init__(self, source: Source, name: str) -> None:
        self.name = name
        self._source = source
        self._is_run = not name
        self._begin()

    def _begin(self, *remarks: str) -> None:
        self._remarks = list(remarks)
        self._unknown: list[str] = []
        self._said: list[tuple[str, dict[str, Any]]] = []
        self._responses: dict[str, list[Any]] = {}

    def take(self, where: str, event: dict[str, Any]) -> None:
        """Take note of one event."""
        kind = str(event.get("type"))
        if event.get("subtype") == "compact_boundary" or kind == "conversation_reset":
            self._begin(COMPACTED)
        elif kind not in TYPES:
            self._unknown.append(kind)
        elif kind in ("user", "assistant"):
            with self._source.leaving_out():
                self._take_message(where, kind, event)

    def _take_message(self, where: str, kind: str, event: dict[str, Any]) -> None:
        message = event.get("message")
        if not isinstance(message, dict):
            self._source.refuse(where, "'message': expected an object")
        content, name = message.get("content"), first_text(message.get("id"))
        if kind == "assistant" and message.get("model") == SYNTHETIC:
            self._unknown.append("messages of Claude Code's in the model's place")
            return
        if kind == "assistant" and isinstance(content, list):
            said = self._responses.setdefault(name or where, [])
            is_next = not said
            said += [it for it in content if it not in said]
            if not is_next:
                return
            content = said
        fields = {"role": kind, "content": content, "id": first_text(event.get("uuid"), name)}
        self._said.append((where, fields))

    def conversation(self, run: str) -> Conversation:
        """Return the conversation; ``run`` is the session's id."""
        reading = Reading(self._source)
        for where, fields in self._said:
            with self._source.leaving_out():
                reading.add(where, fields)
        for kind in self._unknown:
            reading.leave_out(kind if " " in kind else f"events of type {kind}")
        remarks = [NOT_PRINTED, *self._remarks]
        if reading.messages and reading.messages[0].role != "user" and not self._remarks:
            remarks.append(NO_PROMPT)
        id_ = run if self._is_run else f"{run}/{self.name}"
        return reading.conversation(self.name or self._source.file.stem, remarks, id_=id_)
