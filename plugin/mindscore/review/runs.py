"""Runs from the page: buttons that start them, and events that tell of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web

from mindhooks import FinetuneStats, MemoryStats, MindCommand, Scorer, Trigger, UnhandledCommand
from mindscore._util.errors import format_error
from mindscore.config.file import merge
from mindscore.conversation.conversation import Transcript
from mindscore.review.auth import HEADERS
from mindscore.review.live import Event, Live
from mindscore.review.web import RefusedError, read_form, see_other
from mindscore.session.session import Session, TranscriptMind

COMMANDS = {
    MindCommand.SCORE: "Score memories that are due",
    MindCommand.SCORE_FULL: "Score the full matrix",
    MindCommand.SCORE_FINETUNE: "Find candidates",
}
"""What the page's buttons dispatch, and what stands on them."""

ANSWERED = {
    Trigger.STARTED: "started",
    Trigger.BUSY: "is busy with an earlier command: nothing was started",
    Trigger.RESTARTED: "started again, in the place of the run before",
}


class Runs:
    """One registry, plugins loaded, for as long as the page is served.

    Without a transcript there is nothing to score, and it only gives its scorer.
    """

    def __init__(self, transcript: Transcript | None, tables: Mapping[str, Any]) -> None:
        self.transcript = transcript
        self.live = Live()
        self._tables = tables
        nothing = Transcript(Path(), (), (), ())
        self._mind = TranscriptMind(transcript or nothing, self.live.activity, self.live.hear)
        self._session = Session(self._mind, tables)
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Runs:
        await self._session.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.live.close()
        if self._watching is not None:
            self._watching.cancel()
        await self._session.__aexit__(kind, error, traceback)

    @property
    def under_way(self) -> bool:
        """Whether anything runs that was started here."""
        return self._watching is not None and not self._watching.done()

    async def quiet(self) -> None:
        """Wait until nothing runs that was started here, and that is told."""
        if self._watching is not None:
            await asyncio.wait({self._watching})

    async def scorer(self) -> Scorer:
        """The scorer that the settings name.

        Raises:
            ScorerError: it cannot be built.
        """
        return await self._session.registry.scorer()

    def start(self, command: str, *, alternates: bool) -> None:
        """Dispatch ``command``, and tell those who follow what was answered.

        ``alternates``: whether to say what the model would have said to each candidate.
        """
        registry = self._session.registry
        if command == MindCommand.SCORE_FINETUNE:
            asked = {"finetune": {"generate_alternates": alternates}}
            registry.settings = merge(self._tables, asked)
        is_first, before = not self.under_way, _Before(self._session)
        answers: Mapping[str, Trigger] = {}
        said = "no plugin took it: is its plugin disabled? See mindscore plugins"
        with suppress(UnhandledCommand):
            answers = registry.dispatch(command)
            said = "; ".join(f"{name} {ANSWERED[answer]}" for name, answer in answers.items())
        restarted = Trigger.RESTARTED in answers.values()
        if is_first:
            self._mind.scores.clear()
            self._mind.candidates.clear()
            self.live.begin()
        if restarted:
            self.live.forget("candidate")
        facts = {"said": f"{command}: {said}.", "first": is_first, "restarted": restarted}
        self.live.tell("dispatched", facts)
        if is_first:
            self._watching = asyncio.create_task(self._watch(before), name="review: the end")

    async def _watch(self, before: _Before) -> None:
        await self._session.registry.wait_idle()
        self.live.tell("ended", before.difference())


class _Before:
    """What a session's mind and registry said of earlier runs, to tell what is new."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stats = self._runs()
        self._errors = session.registry.task_errors()

    def difference(self) -> dict[str, list[str]]:
        """What the runs since then have come to, in words."""
        old = self._stats
        ran = [stats for stats in self._runs() if stats and not any(stats is it for it in old)]
        raised = self._session.registry.task_errors()
        crashed = [
            f"{name}: {format_error(error)}"
            for name, error in raised.items()
            if self._errors.get(name) is not error
        ]
        errors = [stats.error for stats in ran if stats.error]
        # What a flow raises is in its statistics, too, where it writes any.
        return {"lines": [in_words(stats) for stats in ran], "errors": errors or crashed}

    def _runs(self) -> list[MemoryStats | FinetuneStats | None]:
        state = self._session.mind.state
        return [state.memory_last_run, state.finetune_last_run]


def in_words(stats: MemoryStats | FinetuneStats) -> str:
    """What a run has found, and what it cost."""
    if isinstance(stats, MemoryStats):
        scored = sum(it.status == "scored" for it in stats.outcomes.values())
        found = f"{scored} of {len(stats.outcomes)} memories scored"
    else:
        found = f"{stats.above_threshold} candidates in {stats.responses_considered} responses"
    computed = "" if stats.computed_tokens is None else f", {stats.computed_tokens:,} computed"
    cost = f"{stats.calls:,} calls, {stats.prompt_tokens:,} tokens sent{computed}"
    return f"{found}; {cost}, {stats.seconds:.1f} s"


RETRY_MS = 2000
"""After so long a browser follows again that has lost its connection."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How followers are told, in seconds.

    ``together``: what happens within so long is told at once; ``heartbeat``: so often they hear
    that all is well; ``taken``: so long each may take to read what it is told, or it is dropped.
    """

    together: float = 0.1
    heartbeat: float = 15.0
    taken: float = 10.0


DEFAULT_PACE = Pace()


class Running:
    """Answers for the buttons, and for who follows what they start."""

    def __init__(self, runs: Runs, pace: Pace = DEFAULT_PACE) -> None:
        self._runs = runs
        self._pace = pace

    def routes(self) -> list[web.RouteDef]:
        """What is answered."""
        return [web.post("/run", self._run), web.get("/events", self._events)]

    async def _run(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        command = form.get("command", "")
        if self._runs.transcript is None:
            raise RefusedError(409, "There is no conversation: mindscore review TRANSCRIPT.")
        if command not in list(COMMANDS):
            raise RefusedError(400, "The form does not say which command.")
        self._runs.start(command, alternates="alternates" in form)
        return see_other("/")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        headers = {**HEADERS, "Content-Type": "text/event-stream; charset=utf-8"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            await self._follow(response, self._runs.live, _seen(request))
        except (TimeoutError, ConnectionResetError):
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _follow(self, response: web.StreamResponse, live: Live, last: int) -> None:
        words = f"retry: {RETRY_MS}\n\n"
        while not live.closed:
            words += "".join(_written(event) for event in live.since(last))
            last = live.last
            async with asyncio.timeout(self._pace.taken):
                await response.write(words.encode())
            await asyncio.sleep(self._pace.together)
            words = ": still here\n\n"
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.heartbeat):
                    await live.news(last)
                    words = ""


def _seen(request: web.Request) -> int:
    """The last event that the follower was told of, on a connection that it lost or let go of."""
    given = request.headers.get("Last-Event-ID", request.query.get("after", ""))
    return int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0


def _written(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"
