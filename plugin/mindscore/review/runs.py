"""Runs that the page starts, and their events for all who follow."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mindhooks import (
    Activity,
    FinetuneCandidate,
    FinetuneStats,
    MemoryScore,
    MemoryStats,
    MindCommand,
    Scorer,
    Trigger,
    UnhandledCommand,
)
from mindscore._util.errors import format_error
from mindscore._util.text import count_of
from mindscore.config.file import merge
from mindscore.conversation.conversation import Transcript
from mindscore.flows.recorder import CANCELLED
from mindscore.session.session import Session

Kind = Literal["dispatched", "activity", "score", "candidate", "stopped", "ended"]
FOUND: tuple[Kind, ...] = ("score", "candidate")
MOST_FOUND = 1_000
"""Scores, and candidates, that are stored for followers, each: the latest."""
SHOWN = 200
"""Characters of a response that an event carries."""


@dataclass(frozen=True, slots=True)
class RunEvent:
    """An event; ``id`` grows from one to the next."""

    id: int
    kind: Kind
    data: Mapping[str, Any]


class Live:
    """The events since a command began, until nothing runs.

    Nothing waits for a follower: each reads the stored events at its own pace, and a late or
    returning one gets all of them. Of activities only the latest is stored, of scores and of
    candidates the ``MOST_FOUND`` latest; ``found`` counts all of them.
    """

    def __init__(self) -> None:
        self.last = 0
        """The id of the latest event."""
        self.found: Counter[Kind] = Counter()
        self.closed = False
        self._kept: list[RunEvent] = []
        self._activity: RunEvent | None = None
        self._lines: list[_LiveActivity] = []
        self._news = asyncio.Event()

    @property
    def activity_line(self) -> str | None:
        """The current activities in words, or ``None``."""
        return " · ".join(line.message for line in self._lines) or None

    def kept(self, kind: Kind) -> list[Mapping[str, Any]]:
        """Return the data of all events of one kind."""
        return [event.data for event in self._kept if event.kind == kind]

    def begin(self) -> None:
        """Forget all events: a command begins while nothing runs."""
        self._kept.clear()
        self.found.clear()
        self._activity = None

    def forget(self, kind: Kind) -> None:
        """Forget the events of one kind, which do not count any more."""
        self._kept = [event for event in self._kept if event.kind != kind]
        del self.found[kind]

    def tell(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """Add an event for present and later followers."""
        self.last += 1
        event = RunEvent(self.last, kind, data)
        if kind == "activity":
            self._activity = event
        else:
            self._kept.append(event)
        if kind in FOUND:
            self.found[kind] += 1
            if self.found[kind] > MOST_FOUND:
                del self._kept[next(at for at, it in enumerate(self._kept) if it.kind == kind)]
        self._wake()

    def since(self, last: int) -> list[RunEvent]:
        """Return the events after ``last``, or all if ``last`` is of another server."""
        seen = last if last <= self.last else 0
        events = self._kept[bisect_right(self._kept, seen, key=lambda it: it.id) :]
        if self._activity is not None and self._activity.id > seen:
            events.append(self._activity)
        return sorted(events, key=lambda it: it.id)

    async def news(self, last: int) -> None:
        """Wait until there is an event after ``last``, or the end."""
        while self.last == last and not self.closed:
            await self._news.wait()

    def close(self) -> None:
        """End the stream of every follower."""
        self.closed = True
        self._wake()

    def activity(self, message: str) -> Activity:
        """Return an activity that followers see while it is open."""
        return _LiveActivity(self, message)

    def hear(self, found: MemoryScore | FinetuneCandidate) -> None:
        """Add an event for a score or candidate."""
        if isinstance(found, MemoryScore):
            number = self.found["score"] + 1
            self.tell("score", {"number": number, "key": found.key, "nats": f"{found.score:.2f}"})
        else:
            text = found.response_text
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
            facts = {
                "number": self.found["candidate"] + 1,
                "entry_idx": found.entry_idx,
                "nats": f"{found.divergence:.2f}",
            }
            self.tell("candidate", {**facts, "text": shown})

    def opened(self, line: _LiveActivity) -> None:
        """Add an activity that begins."""
        self._lines.append(line)
        self.changed()

    def over(self, line: _LiveActivity) -> None:
        """Remove an activity that has ended."""
        self._lines.remove(line)
        self.changed()

    def changed(self) -> None:
        """Add an event for the current activities."""
        lines = [{"text": it.message, "done": it.done, "total": it.total} for it in self._lines]
        self.tell("activity", {"lines": lines})

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class _LiveActivity(Activity):
    def __init__(self, live: Live, message: str) -> None:
        self.message = message
        self.done: int | None = None
        self.total: int | None = None
        self._live = live

    def __enter__(self) -> _LiveActivity:
        self._live.opened(self)
        return self

    def update(self, message: str, done: int | None = None, total: int | None = None) -> None:
        self.message, self.done, self.total = message, done, total
        self._live.changed()

    def __exit__(self, *_: object) -> None:
        self._live.over(self)


COMMANDS = {
    MindCommand.SCORE: "Score memories that are due",
    MindCommand.SCORE_FULL: "Score the full matrix",
    MindCommand.SCORE_FINETUNE: "Find candidates",
}
"""Commands of the page's buttons, with their labels."""

ANSWERED = {
    Trigger.STARTED: "started",
    Trigger.BUSY: "is busy with an earlier command: nothing was started",
    Trigger.RESTARTED: "started again, in the place of the run before",
}


class Runs:
    """One registry, with plugins loaded, while the page is served.

    Without a transcript there is nothing to score; only its scorer is used.
    """

    def __init__(self, transcript: Transcript | None, tables: Mapping[str, Any]) -> None:
        self.transcript = transcript
        self.live = Live()
        self.tables = tables
        nothing = Transcript(Path(), (), (), ())
        self._session = Session(transcript or nothing, self.live.activity, self.live.hear)
        self._opened = self._session.open(tables)
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Runs:
        await self._opened.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.live.close()
        if self._watching is not None:
            self._watching.cancel()
        await self._opened.__aexit__(None, None, None)

    @property
    def under_way(self) -> bool:
        """True while a run that was started here goes on."""
        return self._watching is not None and not self._watching.done()

    async def quiet(self) -> None:
        """Wait until nothing runs, and the event of that is added."""
        if self._watching is not None:
            await asyncio.wait({self._watching})

    async def scorer(self) -> Scorer:
        """Return the scorer that the settings name.

        Raises:
            ScorerError: it cannot be built.
        """
        return await self._session.registry.scorer()

    def start(self, command: str, *, alternates: bool) -> None:
        """Dispatch ``command``, and add an event with the answers of plugins.

        ``alternates``: whether to generate the alternate of each candidate.
        """
        registry = self._session.registry
        if command == MindCommand.SCORE_FINETUNE:
            asked = {"finetune": {"generate_alternates": alternates}}
            registry.settings = merge(self.tables, asked)
        is_first, before = not self.under_way, _Before(self._session)
        answers: Mapping[str, Trigger] = {}
        said = "no plugin took it: is its plugin disabled? See mindscore plugins"
        with suppress(UnhandledCommand):
            answers = registry.dispatch(command)
            said = "; ".join(f"{name} {ANSWERED[answer]}" for name, answer in answers.items())
        restarted = Trigger.RESTARTED in answers.values()
        if is_first:
            self._session.forget()
            self.live.begin()
        if restarted:
            self.live.forget("candidate")
        facts = {"said": f"{command}: {said}.", "first": is_first, "restarted": restarted}
        self.live.tell("dispatched", facts)
        if is_first:
            self._watching = asyncio.create_task(self._watch(before), name="review: the end")

    def stop(self) -> None:
        """Cancel the runs of all commands, and add an event with their plugins' names."""
        registry = self._session.registry
        names = {name: None for command in COMMANDS for name in registry.cancel(command)}
        if names:
            said = f"Stopping {' and '.join(names)}: what was found until now is kept."
            self.live.tell("stopped", {"said": said})

    async def _watch(self, before: _Before) -> None:
        await self._session.registry.wait_idle()
        self.live.tell("ended", before.difference())


class _Before:
    """The statistics and errors of earlier runs, to tell which are new."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stats = self._runs()
        self._errors = session.registry.task_errors()

    def difference(self) -> dict[str, list[str]]:
        """Return the results of the runs since then, in words."""
        old = self._stats
        ran = [stats for stats in self._runs() if stats and not any(stats is it for it in old)]
        raised = self._session.registry.task_errors()
        crashed = [
            f"{name}: {format_error(error)}"
            for name, error in raised.items()
            if self._errors.get(name) is not error
        ]
        errors = [stats.error for stats in ran if stats.error not in (None, CANCELLED)]
        # What a flow raises is in its statistics, too, where it writes any.
        return {"lines": [in_words(stats) for stats in ran], "errors": errors or crashed}

    def _runs(self) -> list[MemoryStats | FinetuneStats | None]:
        state = self._session.state
        return [state.memory_last_run, state.finetune_last_run]


def in_words(stats: MemoryStats | FinetuneStats) -> str:
    """Return a run's findings and cost in words."""
    if isinstance(stats, MemoryStats):
        scored = sum(it.status == "scored" for it in stats.outcomes.values())
        found = f"{scored} of {count_of(len(stats.outcomes), 'memory', 'memories')} scored"
    else:
        responses = count_of(stats.responses_considered, "response")
        found = f"{count_of(stats.above_threshold, 'candidate')} in {responses}"
    computed = "" if stats.computed_tokens is None else f", {stats.computed_tokens:,} computed"
    sent = f"{count_of(stats.calls, 'call')}, {count_of(stats.prompt_tokens, 'token')} sent"
    stopped = "stopped: " if stats.error == CANCELLED else ""
    return f"{stopped}{found}; {sent}{computed}, {stats.seconds:.1f} s"
