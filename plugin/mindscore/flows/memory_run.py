"""One run of memory-scoring, of either kind: what it reads, settles, spends and reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Literal

from mindhooks import (
    Activity,
    Context,
    MemoryScore,
    MemoryStats,
    Mind,
    Outcome,
    Registry,
    ResponseDivergence,
    Scorer,
)
from mindscore.breaker import Breaker, BreakerError
from mindscore.config import MemoryScoringOptions, Settings, parse_settings
from mindscore.errors import reason
from mindscore.flows.ahead import ahead
from mindscore.flows.ending import CANCELLED, reported
from mindscore.flows.record import record_run
from mindscore.leave_one_out import LeaveOneOut
from mindscore.memories import Memory, find_memories
from mindscore.meter import Meter, Usage, shared_totals
from mindscore.noise import NoiseFloor
from mindscore.pace import Pace
from mindscore.unkept import Unkept, begin

Row = tuple[ResponseDivergence, ...]
Measured = tuple[Row, Row | Exception | None]
"""What a memory did, and what it does alone: ``None`` where that was not asked."""


class MemoryRun:
    """Keeps the mind's state true while a flow runs, and settles every memory with an outcome.

    ``settings``, ``context``, ``memories``, and what scores are read once, at the start.
    """

    settings: Settings
    context: Context
    scorer: Scorer
    noise: NoiseFloor
    compared: LeaveOneOut
    activity: Activity
    _unkept: Unkept

    def __init__(
        self, command: str, mind: Mind, registry: Registry, options: MemoryScoringOptions
    ) -> None:
        self.mind = mind
        self.registry = registry
        self.options = options
        self.memories: list[Memory] = []
        self.outcomes: dict[str, Outcome] = {}
        self.pace = Pace()
        self._command = command
        self._usage = Usage()
        self._model: str | None = None
        self._stats: MemoryStats | None = None

    async def carry_out(self, flow: Callable[[MemoryRun], Awaitable[None]]) -> None:
        """Run ``flow`` from the flag's setting to the statistics, however it ends."""
        self._unkept, tables = begin(self.registry, "scores"), self.registry.settings
        try:
            with reported(self._report):
                self.mind.state.scoring_in_flight = True
                self.mind.changed()
                await self._read()
                line = "scoring: baseline"
                self.activity = self.mind.activity(line)
                with self.activity:
                    self.activity.update(line, 0, len(self.memories))
                    await flow(self)
        finally:
            if self._stats is not None and self._stats.error != CANCELLED:
                await record_run(self.registry, tables, self._command, self._model, self._stats)

    async def _read(self) -> None:
        self.settings = parse_settings(self.registry.settings)
        self.scorer = await self.registry.scorer()
        self._model = self.scorer.model
        self.context = await self.mind.context()
        found, only = find_memories(self.context), self.options.only
        self.memories = [m for m in found if not only or m.key in only]
        known = shared_totals(self.registry, self._command, self.scorer)
        breaker = Breaker(self.settings.server.breaker_failures)
        tokens = self.options.tokens
        meter = Meter(self.scorer, self._usage, known, breaker, tokens=tokens)
        self.noise = NoiseFloor(meter, self.settings.memory.noise_repeats)
        self.compared = LeaveOneOut(meter, self.context, self.noise)

    async def score_each(
        self,
        memories: list[Memory],
        mode: Literal["incremental", "full"],
        measure: Callable[[Memory], Awaitable[Measured]],
        take: Callable[[Memory, Row], None] = lambda _memory, _row: None,
        fingerprint: Callable[[str], str | None] = lambda _key: None,
    ) -> None:
        """Measure each memory, as many at once as go to the server, and emit the scores in order.

        ``take`` gets a row before its score is emitted; the score bears the key's ``fingerprint``.
        A memory that fails stops no other.

        Raises:
            BreakerError: too many calls in a row have failed.
        """
        total = len(memories)
        at_once = self.settings.server.concurrency * getattr(self.scorer, "batch_size", 1)
        turns = ahead(measure, memories, at_once)
        async with aclosing(turns):
            done = 0
            async for memory, measuring in turns:
                done += 1
                self.activity.update(f"scoring: {done}/{total} {memory.key}", done, total)
                found = await measuring
                if isinstance(found, BreakerError):
                    raise found
                if isinstance(found, BaseException):
                    self.settle([memory], Outcome("failed", reason(found)))
                    continue
                row, hold = found
                if not row:
                    # Its only response was the memory itself.
                    self.settle([memory], Outcome("no-response"))
                    continue
                take(memory, row)
                outcome, follows_from = Outcome("scored"), fingerprint(memory.key)
                if isinstance(hold, Exception):
                    # Without a fingerprint: a row that lacks its other half is not resumed from.
                    follows_from = None
                    outcome, hold = Outcome("failed", f"alone: {reason(hold)}"), ()
                self.settle([memory], outcome)
                score = max(response.divergence for response in row)
                await self.registry.emit_score(
                    MemoryScore(memory.key, score, mode, row, hold, follows_from)
                )

    def settle(self, memories: Iterable[Memory], outcome: Outcome) -> None:
        """Say what became of ``memories``."""
        self.outcomes.update({memory.key: outcome for memory in memories})

    def _report(self, error: str | None) -> None:
        if error is not None:
            left = [m for m in self.memories if m.key not in self.outcomes]
            self.settle(left, Outcome("failed", error))
        failed = {k: o.error for k, o in self.outcomes.items() if o.status == "failed"}
        if failed and error is None:
            key, first = next(iter(failed.items()))
            error = f"{len(failed)} of {len(self.memories)} memories failed; {key}: {first}"
        error = self._unkept.beside(error)
        self._stats = self.mind.state.memory_last_run = MemoryStats(
            outcomes={m.key: self.outcomes[m.key] for m in self.memories},
            calls=self._usage.calls,
            prompt_tokens=self._usage.prompt_tokens,
            computed_tokens=self._usage.computed_tokens,
            seconds=self._usage.seconds,
            error=error,
        )
        self.mind.state.scoring_in_flight = False
        self.mind.changed()
