"""The lines of a Claude Code session: a tree, of which a conversation is one way up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mindscore.readers.reading import kind_of, placed
from mindscore.readers.source import Source


class Event(NamedTuple):
    """A line of the tree."""

    line: int
    uuid: str
    parent: str | None
    fields: dict[str, Any]

    @property
    def where(self) -> str:
        """Its place in the file."""
        return f"line {self.line}"

    @property
    def type(self) -> str:
        """What it is: ``user``, ``assistant``, ``attachment`` or anything else."""
        return str(self.fields.get("type"))

    @property
    def speaks(self) -> bool:
        """Whether it is a message of the conversation itself."""
        aside = self.fields.get("isSidechain") or self.fields.get("isMeta")
        return self.type in ("user", "assistant") and not aside

    @property
    def responds(self) -> bool:
        """Whether it is a message of the model's."""
        return self.speaks and self.type == "assistant"

    @property
    def message(self) -> dict[str, Any]:
        """What goes to the model or comes from it.

        Raises:
            ValueError: the line has none.
        """
        message = self.fields.get("message")
        if not isinstance(message, dict):
            raise ValueError(f"'message': expected an object, got {kind_of(message)}")
        return message

    @property
    def response(self) -> str:
        """What its lines share where one response stands in several."""
        name = self.message.get("id")
        return name if isinstance(name, str) and name else self.uuid

    def blocks(self) -> list[dict[str, Any]]:
        """What it says.

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
        """The tool calls whose results it brings."""
        results = [it for it in self.blocks() if it.get("type") == "tool_result"]
        return {str(it.get("tool_use_id")) for it in results}


class Session:
    """All events of a file.

    Raises:
        TranscriptError: names the line that is none.
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
        """The events that lead to the last message, from the first that the file has.

        Raises:
            TranscriptError: there is no message, or the way leads round in a circle.
        """
        last = next((it for it in reversed(self._events.values()) if it.speaks), None)
        if last is None:
            self._source.refuse("the file", "holds no messages")
        chain, seen = [last], {last.uuid}
        while (event := self._events.get(chain[-1].parent or "")) is not None:
            if event.uuid in seen:
                self._source.refuse(event.where, "'parentUuid' leads round in a circle")
            chain.append(event)
            seen.add(event.uuid)
        return chain[::-1]

    def with_parallel_calls(self, chain: list[Event]) -> Iterator[Event]:
        """The chain, and what parallel tool calls leave beside it.

        Each call is a line of its own, and each result hangs from its call: what follows has only
        one of them for a parent.

        Raises:
            TranscriptError: names the line that is damaged.
        """
        on_chain = {event.uuid for event in chain}
        ends: dict[str, int] = {}
        answered: set[str] = set()
        for at, event in enumerate(chain):
            with placed(self._source, event.where):
                if event.responds:
                    ends[event.response] = at
                elif event.speaks:
                    answered |= event.answers()
        beside: dict[int, list[Event]] = {}
        lines: dict[str | None, int] = {}
        for event in self._events.values():
            with placed(self._source, event.where):
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
