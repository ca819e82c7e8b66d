"""What goes on, for all who follow it."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from mindhooks import Activity, FinetuneCandidate, MemoryScore

Kind = Literal["dispatched", "activity", "score", "candidate", "ended"]
SHOWN = 200
"""Characters of a response that an event carries."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that followers are told; ``id`` grows from one to the next."""

    id: int
    kind: Kind
    data: Mapping[str, Any]


class Live:
    """The events from a command's beginning to quiet.

    Nothing waits for a follower: each has its own place in what is kept here, and one that comes
    late, or again, is told all of it. Of activities only the latest is kept.
    """

    def __init__(self) -> None:
        self.last = 0
        """The id of the latest event."""
        self.closed = False
        self._kept: list[Event] = []
        self._activity: Event | None = None
        self._lines: list[_Line] = []
        self._news = asyncio.Event()

    @property
    def activity_line(self) -> str | None:
        """What is being done, in words."""
        return " · ".join(line.message for line in self._lines) or None

    def kept(self, kind: Kind) -> list[Mapping[str, Any]]:
        """What the events of one kind say, since the beginning."""
        return [event.data for event in self._kept if event.kind == kind]

    def begin(self) -> None:
        """Forget what was: a command begins where all was quiet."""
        self._kept.clear()
        self._activity = None

    def forget(self, kind: Kind) -> None:
        """Forget the events of one kind: what they told does not count any more."""
        self._kept = [event for event in self._kept if event.kind != kind]

    def tell(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """Tell all who follow, now or later."""
        self.last += 1
        event = Event(self.last, kind, data)
        if kind == "activity":
            self._activity = event
        else:
            self._kept.append(event)
        self._wake()

    def since(self, last: int) -> list[Event]:
        """What a follower lacks that was told of ``last``, or of what another server told."""
        seen = last if last <= self.last else 0
        events = self._kept[bisect_right(self._kept, seen, key=lambda it: it.id) :]
        if self._activity is not None and self._activity.id > seen:
            events.append(self._activity)
        return sorted(events, key=lambda it: it.id)

    async def news(self, last: int) -> None:
        """Wait until there is something after event ``last``, or no more to come."""
        while self.last == last and not self.closed:
            await self._news.wait()

    def close(self) -> None:
        """End: nobody follows any more."""
        self.closed = True
        self._wake()

    # -- as a mind's screen and ear ----------------------------------------------------------------

    def activity(self, message: str) -> Activity:
        """An activity that followers see while it is open."""
        return _Line(self, message)

    def hear(self, found: MemoryScore | FinetuneCandidate) -> None:
        """Tell of a finding."""
        if isinstance(found, MemoryScore):
            self.tell("score", {"key": found.key, "nats": f"{found.score:.2f}"})
        else:
            text = found.response_text
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
            facts = {"entry_idx": found.entry_idx, "nats": f"{found.divergence:.2f}"}
            self.tell("candidate", {**facts, "text": shown})

    def opened(self, line: _Line) -> None:
        """An activity begins."""
        self._lines.append(line)
        self.changed()

    def over(self, line: _Line) -> None:
        """An activity has ended."""
        self._lines.remove(line)
        self.changed()

    def changed(self) -> None:
        """An activity says something else."""
        lines = [{"text": it.message, "done": it.done, "total": it.total} for it in self._lines]
        self.tell("activity", {"lines": lines})

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class _Line(Activity):
    def __init__(self, live: Live, message: str) -> None:
        self.message = message
        self.done: int | None = None
        self.total: int | None = None
        self._live = live

    def __enter__(self) -> _Line:
        self._live.opened(self)
        return self

    def update(self, message: str, done: int | None = None, total: int | None = None) -> None:
        self.message, self.done, self.total = message, done, total
        self._live.changed()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.over(self)
