"""The registry behind the page: what its buttons start, and what becomes of that."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mindhooks import (
    FinetuneStats,
    MemoryStats,
    MindCommand,
    Scorer,
    Trigger,
    UnhandledCommand,
)
from mindscore.config_file import merge
from mindscore.errors import reason
from mindscore.host import Session, TranscriptMind
from mindscore.review.live import Live
from mindscore.transcripts import Transcript

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
            f"{name}: {reason(error)}"
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
