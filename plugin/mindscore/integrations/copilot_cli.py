"""GitHub Copilot CLI: the events of its sessions, and custom instructions. Tried with 1.0.102."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mindhooks import Role
from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source, first_text
from mindscore.recognisers import Block, Entry, hookimpl
from mindscore.recognisers.finder import hashed

_ASIDE = (
    "session.", "assistant.", "tool.", "subagent.", "hook.", "permission.", "command", "skill.",
    "pending_messages.", "user_input.", "elicitation.", "external_tool.", "tool_search.", "abort",
    "agent.", "mcp.", "sampling.", "exit_plan_mode.", "auto_mode_switch.",
)  # fmt: skip
"""How the types of events begin that tell no message, beside those that are read."""


class CopilotCliReader:
    """Reads ``~/.copilot/session-state/*/events.jsonl``."""

    def detects(self, source: Source) -> bool:
        """Return true if the first line is the start of a session."""
        first = source.first
        if not isinstance(first, dict) or first.get("type") != "session.start":
            return False
        data = first.get("data")
        return isinstance(data, dict) and isinstance(data.get("sessionId"), str)

    def read(self, source: Source) -> list[Conversation]:
        """Return the conversation as it stands at its end.

        Raises:
            TranscriptError: nothing in the file can be read.
        """
        return [_Session(source).conversation(source.file.stem)]


class _Session:
    """The events of a session that tell what the model saw."""

    def __init__(self, source: Source) -> None:
        self._reading = Reading(source)
        self._id = self._title = ""
        self._events: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._summed = 0
        for where, event in source.objects():
            with self._reading.leaving_out(where):
                self._note(where, event)

    def _note(self, where: str, event: Mapping[str, Any]) -> None:
        kind, data = event.get("type"), event.get("data")
        if not isinstance(kind, str) or not isinstance(data, dict):
            raise ValueError("expected an event with a type and data")
        if event.get("agentId") or data.get("parentToolCallId"):
            if kind in ("assistant.message", "user.message"):
                self._reading.leave_out("messages of subagents")
        elif kind == "session.start":
            self._id = first_text(data.get("sessionId"))
        elif kind == "session.title_changed":
            self._title = first_text(data.get("title"))
        elif kind == "session.snapshot_rewind":
            self._forget(first_text(data.get("upToEventId")))
        elif kind == "session.context_cleared":
            self._forget(next(iter(self._events), ""))
        else:
            self._events[first_text(event.get("id")) or where] = (where, event)

    def _forget(self, id_: str) -> None:
        """Take back the event of ``id_`` and all after it."""
        ids = list(self._events)
        for it in ids[ids.index(id_) :] if id_ in self._events else ():
            _, event = self._events.pop(it)
            if event["type"] in ("assistant.message", "user.message"):
                self._reading.leave_out("messages that were taken back")

    def conversation(self, stem: str) -> Conversation:
        reading = self._reading
        for where, event in self._events.values():
            with reading.leaving_out(where):
                self._take(where, event["type"], event["data"], event.get("timestamp"))
        reading.require_messages()
        return reading.conversation(self._id or stem, title=self._title, id_=self._id)

    def _take(self, where: str, kind: str, data: Mapping[str, Any], when: Any) -> None:
        reading = self._reading
        if kind == "system.message":
            self._prompt(where, data)
        elif kind == "user.message":
            text = first_text(data.get("transformedContent"), data.get("content"))
            for attachment in data.get("attachments") or ():
                type_ = attachment.get("type") if isinstance(attachment, dict) else None
                reading.leave_out(f"attachments of type {type_}")
            said = {"role": "user", "content": text, "id": data.get("messageId")}
            reading.add(where, said, timestamp=when)
        elif kind == "assistant.message":
            requests = data.get("toolRequests") or ()
            calls = [{**it, "id": it["toolCallId"]} for it in requests]
            if data.get("reasoningOpaque") and not data.get("reasoningText"):
                reading.leave_out("reasoning that is encrypted")
            said = {"content": data.get("content"), "reasoning": data.get("reasoningText")}
            response = {"role": "assistant", "tool_calls": calls, "id": data.get("messageId")}
            reading.add(where, {**response, **said}, timestamp=when)
        elif kind == "tool.execution_complete":
            self._answer(where, data, when)
        elif kind == "session.compaction_start":
            # The conversation may go on while it is summed up.
            self._summed = sum(it.role != Role.SYSTEM for it in reading.messages)
        elif kind == "session.compaction_complete" and data.get("success"):
            self._compact(where, data, when)
        elif kind == "session.truncation":
            reading.remarks.append(
                f"{where}: the oldest messages were cut off from here on; they are kept in what is "
                "scored"
            )
        elif not kind.startswith(_ASIDE):
            reading.leave_out(f"events of type {kind}")

    def _prompt(self, where: str, data: Mapping[str, Any]) -> None:
        """Put the system prompt in its place: it is told after the first message."""
        messages = self._reading.messages
        if any(it.role == Role.SYSTEM and it.text == data.get("content") for it in messages):
            return
        if any(it.role == Role.SYSTEM for it in messages):
            self._reading.leave_out("later system prompts")
            return
        self._reading.add(where, {"role": "system", "content": data.get("content")})
        messages.insert(0, messages.pop())

    def _answer(self, where: str, data: Mapping[str, Any], when: Any) -> None:
        if data.get("isUserRequested"):
            self._reading.leave_out("commands that the user ran")
            return
        result, error = data.get("result"), data.get("error")
        held = result if isinstance(result, dict) else {}
        if held.get("binaryResultsForLlm"):
            self._reading.leave_out("images and files that tools returned")
        failure = error.get("message") if isinstance(error, dict) else error
        said = {"content": held.get("content", failure), "tool_call_id": data.get("toolCallId")}
        self._reading.add(where, {"role": "tool", **said}, timestamp=when)

    def _compact(self, where: str, data: Mapping[str, Any], when: Any) -> None:
        """Replace what was said before the compaction began by its summary."""
        messages = self._reading.messages
        said = [it for it in messages if it.role != Role.SYSTEM]
        for _ in said[: self._summed]:
            self._reading.leave_out("messages before a compaction")
        messages[:] = [it for it in messages if it.role == Role.SYSTEM]
        if summary := first_text(data.get("summaryContent")):
            self._reading.add(where, {"role": "user", "content": summary}, timestamp=when)
        else:
            self._reading.leave_out("summaries that are not in the file")
        messages += said[self._summed :]
        self._reading.remarks.append(
            f"{where}: the prompt after this compaction is rebuilt from its summary"
        )


_INSTRUCTION = re.compile(
    r"(?:\n{1,2}|\A)<custom_instruction>\n(?P<text>.+?)\n</custom_instruction>(?=\n)", re.DOTALL
)


class CopilotCli:
    """The recogniser of custom instructions: ``copilot-instructions.md``, AGENTS.md and others.

    Their files' names are not printed: keys are hashes of their texts.
    """

    @hookimpl
    def find_memories(self, role: str, text: str) -> Iterator[Block]:
        """Find the elements in a system prompt."""
        if role == "system":
            yield from map(_block, _INSTRUCTION.finditer(text))


def _block(found: re.Match[str]) -> Block:
    entry = Entry(f"custom_instruction:{hashed(found['text'])}", found[0])

    def render(skipped: frozenset[str]) -> str:
        return "" if entry.key in skipped else entry.text

    return Block(found.start(), found.end(), (entry,), render)
