"""Rollouts of Codex CLI, an event a line. Tried with 0.171; older forms after its source.

Items of the Responses API stand there as the model saw them; other records repeat them for the
screen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mindscore.conversation.conversation import Conversation
from mindscore.readers import Reading, Source, first_text

_CALLS = ("function_call", "custom_tool_call", "local_shell_call", "web_search_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_REPEATING = ("event_msg", "turn_context", "world_state", "token_usage_record")
_ENCRYPTED = ("compaction", "compaction_summary", "context_compaction")
_IN_THE_USERS_NAME = re.compile(
    r"\s*(?:# AGENTS\.md instructions|<(?:environment_context|user_instructions|turn_aborted|skill"
    r"|user_shell_command|subagent_notification)[ >])"
)


class Item(NamedTuple):
    """One item of the history, with its place and its time."""

    where: str
    when: Any
    fields: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The type: ``message``, ``reasoning``, ``function_call`` or any other."""
        return first_text(self.fields.get("type"))

    @property
    def speaker(self) -> str:
        """The role of a message; empty for other items."""
        return first_text(self.fields.get("role")) if self.kind == "message" else ""

    @property
    def responds(self) -> bool:
        """Say whether the model produced it."""
        return self.speaker == "assistant" or self.kind in ("reasoning", *_CALLS)

    @property
    def opens_turn(self) -> bool:
        """Say whether the user typed it; Codex tells the model other things in the user's name."""
        if self.speaker != "user":
            return False
        metadata = self.fields.get("internal_chat_message_metadata_passthrough")
        kinds = metadata.get("content_item_kinds") if isinstance(metadata, dict) else None
        if isinstance(kinds, list):
            return any(str(it).startswith("user.") for it in kinds)
        return not _IN_THE_USERS_NAME.match(self.text)

    @property
    def text(self) -> str:
        """The first text of a message."""
        content = self.fields.get("content")
        first = content[0] if isinstance(content, list) and content else content
        return first_text(first.get("text") if isinstance(first, dict) else first)

    def blocks(self) -> list[Any]:
        """Return it as blocks of a message's content."""
        if self.kind == "message":
            content = self.fields.get("content")
            return list(content) if isinstance(content, list) else [content]
        if self.kind in ("local_shell_call", "web_search_call"):
            name = self.kind.removesuffix("_call")
            action = self.fields.get("action")
            return [{**self.fields, "type": "function_call", "name": name, "arguments": action}]
        return [self.fields]


class CodexReader:
    """Reads ``~/.codex/sessions/**/rollout-*.jsonl``."""

    def detects(self, source: Source) -> bool:
        """Say whether the first line is a rollout's."""
        first = source.first
        if not isinstance(first, dict) or "timestamp" not in first:
            return False
        if isinstance(first.get("payload"), dict):
            return first.get("type") in ("session_meta", "response_item")
        # The first form: the fields of the session, then bare items.
        return {"id", "instructions"} <= first.keys()

    def read(self, source: Source) -> list[Conversation]:
        """Read the conversation as the model would see it next.

        Raises:
            TranscriptError: nothing in the file can be read.
        """
        history = _History(source)
        return [history.conversation(source.file.stem)]


class _History:
    """The items of a rollout that are in the prompt at its end."""

    def __init__(self, source: Source) -> None:
        self._reading = Reading(source)
        self._session: Mapping[str, Any] = {}
        self._items: list[Item] = []
        for where, line in source.objects():
            self._take(where, line)

    def _take(self, where: str, line: Mapping[str, Any]) -> None:
        kind, payload = line.get("type"), line.get("payload")
        if "payload" not in line and "record_type" not in line:
            kind, payload = "response_item" if "type" in line else "session_meta", line
        if kind == "response_item" and isinstance(payload, dict):
            self._items.append(Item(where, line.get("timestamp"), payload))
        elif kind == "session_meta" and isinstance(payload, dict):
            # A fork repeats that of the session it comes from.
            self._session = self._session or payload
        elif kind == "compacted" and isinstance(payload, dict):
            self._compact(Item(where, line.get("timestamp"), payload))
        elif isinstance(payload, dict) and payload.get("type") == "thread_rolled_back":
            self._roll_back(payload.get("num_turns"))
        elif kind not in _REPEATING and "record_type" not in line:
            self._reading.leave_out(f"records of type {kind}")

    def _compact(self, event: Item) -> None:
        before, kept = self._items, event.fields.get("replacement_history")
        if isinstance(kept, list):
            self._items = [Item(event.where, event.when, it) for it in kept if isinstance(it, dict)]
        else:
            summary = {"type": "message", "role": "user", "content": event.fields.get("message")}
            self._items = [it for it in before if it.speaker in ("user", "developer")]
            self._items.append(event._replace(fields=summary))
            self._reading.remarks.append(
                f"{event.where}: the prompt after this compaction is rebuilt from its summary"
            )
        for it in before:
            if it.responds or it.kind in _OUTPUTS:
                self._reading.leave_out("items before a compaction")

    def _roll_back(self, turns: Any) -> None:
        opening = [at for at, it in enumerate(self._items) if it.opens_turn]
        if not isinstance(turns, int) or turns < 1 or not opening:
            return
        for _ in opening[-turns:]:
            self._reading.leave_out("turns that the user took back")
        del self._items[opening[-min(turns, len(opening))] :]

    def conversation(self, stem: str) -> Conversation:
        reading, session = self._reading, self._session
        base = session.get("base_instructions")
        if text := first_text(base.get("text") if isinstance(base, dict) else base):
            reading.add("the session", {"role": "system", "content": text})
        told = first_text(session.get("instructions")).strip()
        if told and not any(told in it.text for it in self._items):
            # What older versions call so are the user's own, of AGENTS.md.
            reading.add_memory("the session", "AGENTS.md", told)
        if first_text(session.get("forked_from_id")) and "history_base" in session:
            reading.remarks.append(
                f"it goes on from session {session['forked_from_id']}, whose messages are not in "
                "the file: the scores are of a reconstructed context"
            )
        self._say()
        reading.require_messages()
        id_ = first_text(session.get("id"))
        return reading.conversation(id_ or stem, id_=id_)

    def _say(self) -> None:
        run: list[Item] = []
        calls: dict[str, str] = {}
        for item in self._items:
            call = first_text(item.fields.get("call_id"))
            if item.responds:
                run.append(item)
                if item.kind in _CALLS and call:
                    calls[call] = item.where
            elif item.kind in _OUTPUTS or item.speaker:
                self._respond(run)
                run = []
                calls.pop(call, None)
                if item.speaker:
                    self._abort(item, calls)
                    calls = {}
                result = {"role": "tool", "content": item.blocks()}
                self._add(item, item.fields if item.speaker else result)
            elif item.kind in _ENCRYPTED:
                self._reading.leave_out("summaries of earlier messages, which are encrypted")
            elif item.kind != "ghost_snapshot":
                # That is for undoing what the tools did; the model does not see it.
                self._reading.leave_out(f"items of type {item.kind or 'none'}")
        self._respond(run)

    def _abort(self, item: Item, calls: Mapping[str, str]) -> None:
        """Answer the calls that were interrupted before ``item`` as Codex does."""
        for call, where in calls.items():
            aborted = {"role": "tool", "content": "aborted", "tool_call_id": call}
            self._add(item._replace(where=where), aborted)

    def _respond(self, run: Sequence[Item]) -> None:
        for item in run:
            if item.kind == "web_search_call":
                self._reading.leave_out("results of web searches, which are not in the file")
        for items in _messages(run):
            named = next((it for it in items if it.speaker), items[0])
            content = [block for it in items for block in it.blocks()]
            id_ = first_text(named.fields.get("id"))
            self._add(items[-1], {"role": "assistant", "content": content, "id": id_})

    def _add(self, item: Item, fields: Mapping[str, Any]) -> None:
        with self._reading.leaving_out(item.where):
            self._reading.add(item.where, fields, timestamp=item.when)


def _messages(run: Sequence[Item]) -> list[list[Item]]:
    """Return what the model said in a row as messages: a text stands first, before the calls."""
    found: list[list[Item]] = [[]]
    reasoning: list[Item] = []
    for item in run:
        if item.kind == "reasoning":
            reasoning.append(item)
            continue
        if item.speaker and any(it.kind != "reasoning" for it in found[-1]):
            found.append([])
        found[-1] += [*reasoning, item]
        reasoning = []
    found[-1] += reasoning
    return [it for it in found if it]
