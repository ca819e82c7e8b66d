"""One run of finetune-scoring: with all memories against with none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mindhooks import (
    Activity,
    Context,
    FinetuneCandidate,
    FinetuneStats,
    Mind,
    MindCommand,
    Registry,
    ResponseDivergence,
    Scorer,
)
from mindscore.breaker import Breaker
from mindscore.config import Settings, parse_settings
from mindscore.errors import reason
from mindscore.flows.candidates import bare_prompt, end_of_turn, make_candidate
from mindscore.flows.ending import CANCELLED, reported
from mindscore.flows.record import record_run
from mindscore.leave_one_out import LeaveOneOut
from mindscore.memories import affected, assistant_indexes, everything
from mindscore.meter import Meter, Usage, shared_totals
from mindscore.noise import NoiseFloor
from mindscore.pace import Pace
from mindscore.prompts import beginning
from mindscore.selftest import ensure_tested
from mindscore.store import Store
from mindscore.unkept import Unkept, begin


class FinetuneRun:
    """Clears earlier candidates, finds new ones, says what the model says without memories."""

    _breaker: Breaker
    _unkept: Unkept

    def __init__(self, mind: Mind, registry: Registry) -> None:
        self._mind = mind
        self._registry = registry
        self._settings = Settings()
        self._usage = Usage()
        self._pace = Pace()
        self._considered = 0
        self._emitted = 0
        self._largest = 0.0
        self._failed_alternates: list[str] = []
        self._model: str | None = None
        self._stats: FinetuneStats | None = None

    async def carry_out(self) -> None:
        """Run from the clearing to the statistics, however it ends."""
        self._unkept, tables = begin(self._registry, "candidates"), self._registry.settings
        try:
            with reported(self._report):
                self._mind.state.finetune_candidates.clear()
                self._mind.changed()
                await self._run()
        finally:
            if self._stats is not None and self._stats.error != CANCELLED:
                await record_run(
                    self._registry, tables, MindCommand.SCORE_FINETUNE, self._model, self._stats
                )

    async def _run(self) -> None:
        self._settings = parse_settings(self._registry.settings)
        settings = self._settings.finetune
        scorer = await self._registry.scorer()
        self._model = scorer.model
        known = shared_totals(self._registry, MindCommand.SCORE_FINETUNE, scorer)
        self._breaker = Breaker(self._settings.server.breaker_failures)
        meter = Meter(scorer, self._usage, known, self._breaker)
        context = await self._mind.context()
        noise = NoiseFloor(meter, self._settings.memory.noise_repeats)
        window = finetune_window(len(context.conversation), settings.window_fraction)
        self._considered = len(assistant_indexes(context, window))
        message = f"finetune: scoring {self._considered} responses..."
        activity = self._mind.activity(message)
        with activity:
            activity.update(message, 0, self._considered)
            if affected(context, window, everything):
                await ensure_tested(scorer, self._settings.server, beginning(context))
            found = await LeaveOneOut(meter, context, noise).drop(window, everything)
            self._largest = max((response.divergence for response in found), default=0.0)
            candidates = await self._candidates(context, found)
            if settings.generate_alternates:
                await self._emit_with_alternates(scorer, context, candidates, activity)
            else:
                for candidate in candidates:
                    await self._emit(candidate)

    async def _candidates(
        self, context: Context, found: Sequence[ResponseDivergence]
    ) -> list[FinetuneCandidate]:
        settings = self._settings.finetune
        trained = await Store(self._settings.store).trained()
        candidates = []
        for response in sorted(found, key=lambda it: (-it.divergence, it.entry_idx)):
            has_text = context.conversation[response.entry_idx].text.strip()
            if response.divergence >= settings.threshold and has_text:
                await self._pace.step()
                candidates.append(make_candidate(context, response, settings.prior_messages))
        return [c for c in candidates if not trained.covers(c.timestamp_ns, c.continuation_ids)]

    async def _emit(self, candidate: FinetuneCandidate) -> None:
        self._emitted += 1
        await self._registry.emit_candidate(candidate)

    async def _emit_with_alternates(
        self,
        scorer: Scorer,
        context: Context,
        candidates: Sequence[FinetuneCandidate],
        activity: Activity,
    ) -> None:
        stop = end_of_turn(context)
        for number, candidate in enumerate(candidates, start=1):
            line = f"finetune: generating alternate {number}/{len(candidates)}"
            activity.update(line, number, len(candidates))
            await self._pace.step()
            try:
                with self._breaker.call():
                    spoken = await scorer.generate(
                        bare_prompt(context, candidate),
                        max_tokens=self._settings.finetune.max_alternate_tokens,
                        stop=stop,
                    )
            except Exception as failure:
                self._failed_alternates.append(reason(failure))
                await self._emit(candidate)
            else:
                await self._emit(
                    replace(candidate, alternate_text=spoken.text, alternate_ids=spoken.token_ids)
                )

    def _report(self, error: str | None) -> None:
        if self._failed_alternates and error is None:
            failed = len(self._failed_alternates)
            error = f"{failed} alternates could not be generated: {self._failed_alternates[0]}"
        error = self._unkept.beside(error)
        self._stats = self._mind.state.finetune_last_run = FinetuneStats(
            responses_considered=self._considered,
            above_threshold=self._emitted,
            threshold=self._settings.finetune.threshold,
            max_divergence=self._largest,
            calls=self._usage.calls,
            prompt_tokens=self._usage.prompt_tokens,
            computed_tokens=self._usage.computed_tokens,
            seconds=self._usage.seconds,
            error=error,
        )
        self._mind.changed()


def finetune_window(length: int, fraction: float) -> range:
    """The last ``floor(length * fraction)`` nodes of a conversation of ``length``."""
    return range(length - math.floor(length * fraction), length)
