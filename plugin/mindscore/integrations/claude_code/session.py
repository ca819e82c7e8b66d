"""A session file of Claude Code's as a tree of events: who follows whom, and what was kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

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
        return self.type in ("user", "assistant") and not self.fields.get("isMeta")

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
        return first_text(self.message.get("id")) or self.uuid

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

    @property
    def attachment(self) -> Mapping[str, Any]:
        """The content of an attachment; empty if it holds nothing."""
        held = self.fields.get("attachment") if self.type == "attachment" else None
        return held if isinstance(held, dict) else {}


QUEUED = "queued_command"
"""The attachment that holds what the user wrote while the model worked."""


class SessionFile:
    """All events of a file, in the file's order.

    A line that is not valid is left out. What followed it follows what was before it.

    Raises:
        TranscriptError: the file cannot be read.
    """

    def __init__(self, source: Source) -> None:
        self.title = ""
        self.lost = 0
        """Messages that the user had queued, of which the file does not say what became."""
        self.nameless = 0
        """Subagents without a name, which are left out."""
        self.queued: dict[str, list[Event]] = {}
        """What the user wrote meanwhile and is no event of the tree, by the event before it."""
        self._source = source
        self._events: dict[str, Event] = {}
        self._parents: dict[str, str | None] = {}
        self._last = ""
        self._damaged = 0
        attached: Counter[str] = Counter()
        removed: list[tuple[str, Event, bool]] = []
        for line, record in source.records():
            with source.leaving_out(), source.placed(f"line {line}"):
                if not isinstance(record, dict):
                    raise ValueError(f"expected an object, got {kind_of(record)}")
                self._note(line, record, attached, removed)
        self._keep()
        self._absorb(attached, removed)

    def _note(
        self,
        line: int,
        record: dict[str, Any],
        attached: Counter[str],
        removed: list[tuple[str, Event, bool]],
    ) -> None:
        for kind, field in (("summary", "summary"), ("custom-title", "customTitle")):
            if record.get("type") == kind and isinstance(record.get(field), str):
                self.title = record[field]
        uuid, parent = record.get("uuid"), record.get("parentUuid")
        if isinstance(uuid, str) and (parent is None or isinstance(parent, str)):
            self._plant(Event(line, uuid, parent, record))
        elif record.get("type") in ("user", "assistant"):
            field = "parentUuid" if isinstance(uuid, str) else "uuid"
            raise ValueError(f"'{field}': expected text")
        event = Event(line, uuid if isinstance(uuid, str) else "", None, record)
        if event.attachment.get("type") == QUEUED:
            attached[_text(event.attachment.get("prompt"))] += 1
            if not event.uuid:
                self.queued.setdefault(self._last, []).append(event)
        elif record.get("type") == "queue-operation" and record.get("operation") == "remove":
            absorbed = record.get("reason") == "absorbed_mid_turn"
            removed.append((self._last, event, absorbed))

    def _plant(self, event: Event) -> None:
        parent = event.parent
        is_torn = self._source.damage.records > self._damaged
        if parent is not None and parent not in self._events and is_torn and self._last:
            # The line of its parent is damaged.
            parent = self._last
        self._damaged = self._source.damage.records
        if event.speaks:
            with self._source.leaving_out(), self._source.placed(event.where):
                event.blocks()
            if self._source.damage.records > self._damaged:
                # It keeps its place, for what follows it.
                event = event._replace(fields={**event.fields, "type": "damaged"})
                self._damaged = self._source.damage.records
        self._events[event.uuid] = event
        self._parents[event.uuid] = parent
        if not event.fields.get("isSidechain"):
            self._last = event.uuid

    def _keep(self) -> None:
        """Move what a compaction kept of the conversation behind its summary."""
        for event in list(self._events.values()):
            held = event.fields.get("compactMetadata")
            if event.fields.get("subtype") != "compact_boundary" or not isinstance(held, dict):
                continue
            anchor, kept = self._kept(held)
            if anchor in kept or not kept or not {anchor, *kept} <= self._events.keys():
                continue
            for uuid, parent in self._parents.items():
                if parent == anchor:
                    self._parents[uuid] = kept[-1]
            self._parents.update(zip(kept, [anchor, *kept], strict=False))

    def _kept(self, held: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Return the event that a compaction's kept messages follow, and those messages."""
        named = held.get("preservedMessages")
        if isinstance(named, dict) and isinstance(uuids := named.get("uuids"), list):
            return first_text(named.get("anchorUuid")), [it for it in uuids if isinstance(it, str)]
        segment = held.get("preservedSegment")
        if not isinstance(segment, dict):
            return "", []
        head, at = first_text(segment.get("headUuid")), segment.get("tailUuid")
        kept: list[str] = []
        while isinstance(at, str) and at in self._parents and at not in kept:
            kept.append(at)
            if at == head:
                return first_text(segment.get("anchorUuid")), kept[::-1]
            at = self._parents[at]
        return "", []

    def _absorb(self, attached: Counter[str], removed: list[tuple[str, Event, bool]]) -> None:
        """Add what was taken out of the queue to be told to the model at once."""
        asked = {_text(it.message.get("content")) for it in self._events.values() if it.speaks}
        for before, event, absorbed in removed:
            text = _text(event.fields.get("content"))
            if attached[text]:
                # It stands in the file a second time, as an attachment.
                attached[text] -= 1
            elif absorbed and text:
                self.queued.setdefault(before, []).append(event)
            elif text and text not in asked:
                self.lost += 1

    def tracks(self) -> dict[str, list[Event]]:
        """Return the events of the conversation, under an empty name, and those of each subagent.

        What has no message is left out, and so are subagents without a name beside a conversation:
        older versions of Claude Code wrote none.
        """
        tracks: dict[str, list[Event]] = {"": []}
        names: dict[str, str] = {}
        nameless: set[str] = set()
        for event in self._events.values():
            name = ""
            if event.fields.get("isSidechain"):
                name = first_text(event.fields.get("agentId"))
                if not name:
                    name = names.get(self._parents[event.uuid] or "") or event.uuid
                    nameless.add(name)
            names[event.uuid] = name
            tracks.setdefault(name, []).append(event)
        spoken = {name: it for name, it in tracks.items() if any(each.speaks for each in it)}
        if "" in spoken:
            for name in nameless & spoken.keys():
                del spoken[name]
                self.nameless += 1
        return spoken

    def chain(self, track: Iterable[Event]) -> list[Event]:
        """Return the events that lead to the last message of ``track``, from the first of the file.

        Raises:
            TranscriptError: the parents form a circle.
        """
        last = [it for it in track if it.speaks][-1]
        chain, seen = [last], {last.uuid}
        while (event := self._events.get(self._parents[chain[-1].uuid] or "")) is not None:
            if event.uuid in seen:
                self._source.refuse(event.where, "'parentUuid' leads in a circle")
            chain.append(event)
            seen.add(event.uuid)
        return chain[::-1]

    def begins_before(self, event: Event) -> bool:
        """Return true if ``event`` follows one that is not in the file."""
        return self._parents[event.uuid] is not None

    def with_parallel_calls(self, chain: list[Event], track: Iterable[Event]) -> Iterator[Event]:
        """Yield the chain, with the events of parallel tool calls that are beside it.

        Each call is a line of its own and the parent of its result; the next message has only one
        of the results as its parent.
        """
        on_chain = {event.uuid for event in chain}
        ends: dict[str, int] = {}
        answered: set[str] = set()
        for at, event in enumerate(chain):
            if event.responds:
                ends[event.response] = at
            elif event.speaks:
                answered |= event.answers()
        beside: dict[int, list[Event]] = {}
        lines: dict[str | None, int] = {}
        for event in track:
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


def _text(content: Any) -> str:
    """Return the text of a message's content, to compare it."""
    if isinstance(content, list):
        return "".join(first_text(it.get("text")) for it in content if isinstance(it, dict))
    return content if isinstance(content, str) else ""
