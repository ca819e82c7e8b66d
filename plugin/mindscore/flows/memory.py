"""memory-scoring: score memories as they fall due, or the full matrix."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal

from mindhooks import (
    Activity,
    MemoryScore,
    MemoryStats,
    Mind,
    MindCommand,
    Outcome,
    Registry,
    Trigger,
    hookimpl,
)
from mindscore._util.aio import map_ordered
from mindscore._util.errors import format_error
from mindscore.config.settings import MemoryScoringOptions, parse_table
from mindscore.flows.confirming import Untried
from mindscore.flows.matrix import Measured, score_matrix
from mindscore.flows.run import FlowRun
from mindscore.measure.interactions import Interaction, RedundantGroup
from mindscore.measure.leave_one_out import Divergences
from mindscore.measure.memories import (
    Memory,
    find_memories,
    past_cutoff,
    response_window,
    responses,
    skip_only,
    text_hashes,
)
from mindscore.measure.placebo import PlaceboControl
from mindscore.measure.prompts import Budget, whole_prompt
from mindscore.measure.retry import BreakerError
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.scorers.selftest import ensure_tested
from mindscore.store import Store

log = logging.getLogger("mindscore")


class MemoryRun(FlowRun):
    """A run of memory-scoring, of either command: every memory gets an outcome."""

    activity: Activity

    def __init__(
        self, command: str, mind: Mind, registry: Registry, options: MemoryScoringOptions
    ) -> None:
        super().__init__(command, mind, registry)
        self.options = options
        self.memories: list[Memory] = []
        self.outcomes: dict[str, Outcome] = {}
        self.rows: dict[str, MemoryScore] = {}

    def begin(self) -> None:
        """Raise the flag that a memory run is going, and forget what another one came with."""
        for kind in (ScreenReceipt, PlaceboControl, RedundantGroup, Interaction, Untried):
            self.registry.stash.pop(kind, None)
        self.mind.state.scoring_in_flight = True
        self.mind.changed()

    async def perform(self) -> None:
        """Find the memories and score them by the command's rules."""
        await self.read(tokens=self.options.tokens)
        found, only = find_memories(self.context), self.options.only
        self.memories = [m for m in found if not only or m.key in only]
        line = "scoring: baseline"
        self.activity = self.mind.activity(line)
        with self.activity:
            self.activity.update(line, 0, len(self.memories))
            await FLOWS[MindCommand(self.command)](self)

    async def score_each(
        self,
        memories: Sequence[Memory],
        mode: Literal["incremental", "full"],
        measure: Callable[[Memory], Awaitable[Measured]],
        take: Callable[[Memory, Divergences], None] = lambda _memory, _row: None,
        fingerprint: Callable[[str], str | None] = lambda _key: None,
    ) -> None:
        """Measure each memory, as many at once as go to the server, and emit the scores in order.

        ``take`` gets a row before its score is emitted; the score bears the key's ``fingerprint``.
        A memory that fails stops no other.

        Raises:
            BreakerError: too many calls in a row have failed.
        """
        total = len(memories)
        turns = map_ordered(measure, memories, self.settings.server.concurrency)
        async with aclosing(turns):
            done = 0
            async for memory, measuring in turns:
                done += 1
                self.activity.update(f"scoring: {done}/{total} {memory.key}", done, total)
                found = await measuring
                if isinstance(found, BreakerError):
                    raise found
                if isinstance(found, BaseException):
                    self.set_outcome([memory], Outcome("failed", format_error(found)))
                    continue
                row, hold = found
                if not row:
                    # Its only response was the memory itself.
                    self.set_outcome([memory], Outcome("no-response"))
                    continue
                take(memory, row)
                outcome, follows_from = Outcome("scored"), fingerprint(memory.key)
                if isinstance(hold, Exception):
                    # Without a fingerprint: a row that lacks its other half is not resumed from.
                    follows_from = None
                    outcome, hold = Outcome("failed", f"alone: {format_error(hold)}"), ()
                self.set_outcome([memory], outcome)
                score = max(response.divergence for response in row)
                emitted = MemoryScore(memory.key, score, mode, row, hold, follows_from)
                self.rows[memory.key] = emitted
                await self.registry.emit_score(emitted)

    def set_outcome(self, memories: Iterable[Memory], outcome: Outcome) -> None:
        """Give ``memories`` their outcome."""
        self.outcomes.update({memory.key: outcome for memory in memories})

    def make_stats(self, error: str | None) -> MemoryStats:
        """Return the run's statistics; on an error, memories without an outcome have failed."""
        if error is not None:
            left = [m for m in self.memories if m.key not in self.outcomes]
            self.set_outcome(left, Outcome("failed", error))
        failed = {k: o.error for k, o in self.outcomes.items() if o.status == "failed"}
        if failed and error is None:
            key, first = next(iter(failed.items()))
            error = f"{len(failed)} of {len(self.memories)} memories failed; {key}: {first}"
        state = self.mind.state
        state.scoring_in_flight = False
        state.memory_last_run = MemoryStats(
            outcomes={m.key: self.outcomes[m.key] for m in self.memories},
            calls=self.usage.calls,
            prompt_tokens=self.usage.prompt_tokens,
            computed_tokens=self.usage.computed_tokens,
            seconds=self.usage.seconds,
            error=self.failures.beside(error),
        )
        return state.memory_last_run


async def score_due(run: MemoryRun) -> None:
    """Score every memory that is due and has been in the conversation for long enough."""
    settings, context = run.settings.memory, run.context
    last = await Store(run.settings.store).last_scored(
        run.scorer.model, context.id, text_hashes(context)
    )
    due = [m for m in run.memories if _is_due(last.get(m.key), settings.interval_s)]
    late = past_cutoff(context, due, settings.token_cutoff)
    windows, ready = {}, []
    for memory in due:
        await run.pace.yield_to_loop()
        windows[memory] = response_window(context, memory.position, settings.response_window)
    for memory in run.memories:
        await run.pace.yield_to_loop()
        if memory not in windows:
            run.set_outcome([memory], Outcome("not-due"))
        elif memory.key in late:
            run.set_outcome([memory], Outcome("past-cutoff"))
        elif not responses(context, windows[memory]):
            run.set_outcome([memory], Outcome("no-response"))
        else:
            ready.append(memory)
    ready.sort(key=lambda memory: (last.get(memory.key, -math.inf), memory.position))
    budget = Budget(context, windows, run.options.max_tokens, run.noise.repeats)
    chosen = []
    for memory in ready:
        await run.pace.yield_to_loop()
        if await budget.takes(memory):
            chosen.append(memory)
    run.set_outcome([memory for memory in ready if memory not in chosen], Outcome("left-out"))
    await run.narrow(budget.spent)
    if chosen:
        await ensure_tested(run.scorer, run.settings.server, await whole_prompt(context), run.usage)

    async def measure(memory: Memory) -> Measured:
        window = windows[memory]
        row = await run.compared.drop(window, skip_only(memory.key), budget.judged(window))
        return row, None

    await run.score_each(chosen, "incremental", measure)


def _is_due(last_scored: float | None, interval_s: float) -> bool:
    if last_scored is None:
        return True
    # Scored in the time to come: by a clock that has been set back since, so nobody knows when.
    elapsed_s = time.time() - last_scored
    return elapsed_s < 0 or elapsed_s >= interval_s


NAME = "memory-scoring"
FLOWS: dict[MindCommand, Callable[[MemoryRun], Awaitable[None]]] = {
    MindCommand.SCORE: score_due,
    MindCommand.SCORE_FULL: score_matrix,
}


class MemoryScoring:
    """The plugin that answers ``score`` and ``score-full``, one run at a time for both."""

    commands = tuple(FLOWS)

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._options = parse_table(table, MemoryScoringOptions, f"plugins.settings.{NAME}")

    @hookimpl
    def on_trigger(self, command: str, mind: Mind, registry: Registry) -> Trigger | None:
        if command not in FLOWS:
            return None
        # A host may have options for its next run alone.
        options = registry.stash.get(MemoryScoringOptions, self._options)
        run = MemoryRun(command, mind, registry, options)
        return registry.task_handle(NAME).trigger_if_idle(run.carry_out)
