"""memory-scoring: score memories as they fall due, or the full matrix."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
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
    ResponseDivergence,
    ScorerError,
    Trigger,
    hookimpl,
)
from mindscore._util.aio import map_ordered
from mindscore._util.errors import format_error
from mindscore.config.settings import MemoryScoringOptions, parse_table
from mindscore.flows.run import FlowRun
from mindscore.flows.screen import Emit, Screening
from mindscore.measure.cached_scorer import weights_of
from mindscore.measure.divergence import RedundantGroup, confirmed, redundant_candidates
from mindscore.measure.memories import (
    Memory,
    find_memories,
    past_cutoff,
    response_window,
    responses,
    responses_after_change,
    skip_only,
    text_hashes,
    whole,
)
from mindscore.measure.prompts import Beginnings, Budget, RowFingerprints, whole_prompt
from mindscore.measure.retry import BreakerError
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.scorers.selftest import ensure_tested
from mindscore.store import Store

log = logging.getLogger("mindscore")

Row = tuple[ResponseDivergence, ...]
Measured = tuple[Row, Row | Exception | None]
"""What a memory did, and what it does alone: ``None`` where that was not asked."""


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
        """Raise the flag that a memory run is going."""
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
                if hold:
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
    if chosen:
        await ensure_tested(run.scorer, run.settings.server, await whole_prompt(context))

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


async def score_matrix(run: MemoryRun) -> None:
    """Score each memory over the whole conversation: at most one call more than memories.

    With ``hold``, as many again. The last memory goes first: its prompt shares the longest prefix
    with the baseline, which the server may still have cached.
    """
    context, window = run.context, whole(run.context)
    if not responses(context, window) or not run.memories:
        run.set_outcome(run.memories, Outcome("no-response"))
        return
    kept, known, fingerprints = dict[str, MemoryScore](), None, None
    grown: dict[str, MemoryScore] = {}
    if run.options.resume and (known := await _weights(run)) is not None:
        fingerprints = RowFingerprints(context, known)
        kept, grown = await _kept_rows(run, fingerprints, known)
    left = [memory for memory in run.memories if memory.key not in kept]
    screens = run.options.screen or run.settings.memory.screens(len(run.memories))
    chosen = await _affordable(run, left, screens=screens)
    run.set_outcome([memory for memory in left if memory not in chosen], Outcome("left-out"))
    judging: set[str] = set()
    if chosen:
        await ensure_tested(run.scorer, run.settings.server, await whole_prompt(context))
        for memory in chosen:
            await run.pace.yield_to_loop()
            its = responses_after_change(context, window, skip_only(memory.key))
            judging |= its - {it.node_id for it in _parts(grown, memory)[0]}
        await run.compared.baseline(window, judging)
    # Asked for once the server has answered: some say it in their answers alone.
    weights = await _weights(run)
    if (kept or grown) and weights != known:
        raise ScorerError(REPLACED)
    if fingerprints is None or weights != known:
        fingerprints = RowFingerprints(context, weights or "")

    async def measure(memory: Memory) -> Measured:
        if memory.key in kept:
            row = kept[memory.key]
            run.compared.resume(window, skip_only(memory.key), row.divergences)
            return row.divergences, row.hold if run.options.hold else None
        drop, hold = _parts(grown, memory)
        found = await run.compared.drop(window, skip_only(memory.key), judging, drop)
        if await _weights(run) != weights:
            raise ScorerError(REPLACED)
        if not run.options.hold:
            return found, None
        try:
            return found, await run.compared.hold(window, memory.key, judging, hold)
        # What was measured of the memory is not lost with it.
        except Exception as error:
            return found, error

    async def emit(memories: Sequence[Memory], take: Callable[[Memory, Row], None]) -> None:
        def show_and_take(memory: Memory, row: Row) -> None:
            _show_row(run, memory, row)
            take(memory, row)

        of = (lambda _: None) if weights is None else fingerprints.of
        await run.score_each(memories, "full", measure, show_and_take, of)

    ready = [it for it in run.memories[::-1] if it.key in kept or it in chosen]
    if screens and chosen:
        await _screen(run, window, ready, kept, judging, emit)
    else:
        await emit(ready, lambda _memory, _row: None)
    if run.rows:
        await _confirm_redundant(run, window)


async def _screen(
    run: MemoryRun,
    window: range,
    memories: Sequence[Memory],
    known: Collection[str],
    judging: Collection[str],
    emit: Emit,
) -> None:
    """Measure the rows that a screen points at; the others are estimated."""

    def show(done: int, total: int) -> None:
        run.activity.update(f"scoring: screen {done}/{total}", done, total)

    await Screening(run, run.options, window, memories, known, judging, emit, show).carry_out()
    receipt: ScreenReceipt = run.registry.stash[ScreenReceipt]
    left = [memory for memory in memories if memory.key not in run.outcomes]
    estimated = set(receipt.estimated)
    run.set_outcome([it for it in left if it.key in estimated], Outcome("estimated"))
    run.set_outcome([it for it in left if it.key not in estimated], Outcome("left-out"))


async def _confirm_redundant(run: MemoryRun, window: range) -> None:
    """Remove each group that may hide each other together, one prompt a group."""
    rows = [run.rows[memory.key] for memory in run.memories if memory.key in run.rows]
    found = []
    length = len(await whole_prompt(run.context))
    for group in redundant_candidates(rows):
        limit = run.options.max_tokens
        if limit and run.usage.prompt_tokens + 2 * length > limit:
            log.info("no tokens are left to confirm memories that may hide each other")
            break
        try:
            without = await run.compared.drop(window, set(group.keys).__contains__)
        # What was measured is not lost with it: the group is not named.
        except Exception as error:
            log.warning("memories that may hide each other: %s", format_error(error))
            break
        found.append(confirmed(group, without))
    run.registry.stash[RedundantGroup] = tuple(it for it in found if it is not None)


REPLACED = (
    "the model's weights were replaced while the matrix was measured: its rows cannot be compared; "
    "run it again"
)


async def _weights(run: MemoryRun) -> str | None:
    return await weights_of(run.scorer, run.settings.server, run.retry)


async def _affordable(run: MemoryRun, left: list[Memory], *, screens: bool) -> list[Memory]:
    """Return the memories of ``left`` that fit into ``max_tokens``: the last ones, which go first.

    Each prompt counts as long as the whole conversation, so that never more is sent. A screen has
    its own way to choose, once the baseline is known.
    """
    limit, passes = run.options.max_tokens, 1 + run.options.hold
    if not limit or not left:
        return left
    length = len(await whole_prompt(run.context))
    baselines = length * (passes + run.noise.repeats)
    count = max(0, limit - baselines) // (length * passes) if length else 0
    if screens:
        return left if limit >= baselines else []
    return left[-count:] if count else []


async def _kept_rows(
    run: MemoryRun, fingerprints: RowFingerprints, weights: str
) -> tuple[dict[str, MemoryScore], dict[str, MemoryScore]]:
    """Return the rows that the store has of this very conversation and model, by memory.

    The second are those of its beginning: it has grown since, and what was sent has not changed.
    """
    context = run.context
    rows = await Store(run.settings.store).rows(run.scorer.model, context.id)
    beginnings = Beginnings(context, weights)
    kept, grown = {}, {}
    for memory in run.memories:
        await run.pace.yield_to_loop()
        row = rows.get(memory.key)
        if row is None or (run.options.hold and row.hold is None):
            continue
        if row.fingerprint == fingerprints.of(memory.key):
            kept[memory.key] = row
        elif beginnings.have(row):
            grown[memory.key] = row
    return kept, grown


def _parts(grown: Mapping[str, MemoryScore], memory: Memory) -> tuple[Row, Row]:
    """Return what is known of a memory's row, and of its row alone."""
    row = grown.get(memory.key)
    return ((), ()) if row is None else (row.divergences, row.hold or ())


def _show_row(run: MemoryRun, memory: Memory, row: Row) -> None:
    """Set the row's values above ``memory.min_divergence`` on the screen, remove the others."""
    cells = run.mind.state.response_scores
    for response in row:
        column = cells.setdefault(response.node_id, {})
        column.pop(memory.key, None)
        if response.divergence > run.settings.memory.min_divergence:
            column[memory.key] = response.divergence
        if not column:
            del cells[response.node_id]
    run.mind.changed()


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
