"""The full matrix: each memory against each response, measured, kept from before, or screened."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from mindhooks import MemoryScore, Outcome, ScorerCapabilities, ScorerError
from mindscore.flows.confirming import Check, confirm_interactions
from mindscore.flows.placebo import control_places
from mindscore.flows.screen import Emit, Screening
from mindscore.measure.cached_scorer import weights_of
from mindscore.measure.leave_one_out import Divergences
from mindscore.measure.memories import (
    Memory,
    find_memories,
    responses,
    responses_after_change,
    skip_none,
    skip_only,
    whole,
)
from mindscore.measure.prompts import Beginnings, RowFingerprints, prompts_for, whole_prompt
from mindscore.measure.screening.budget import spent_tokens
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.measure.screening.spans import NO_SPANS, MemorySpans, find_spans
from mindscore.scorers.selftest import ensure_tested
from mindscore.store import Store

if TYPE_CHECKING:
    from mindscore.flows.memory import MemoryRun

Measured = tuple[Divergences, Divergences | Exception | None]
"""What a memory did, and what it does alone: ``None`` where that was not asked."""

REPLACED = (
    "the model's weights were replaced while the matrix was measured: its rows cannot be compared; "
    "run it again"
)


class StoredRows(dict[str, MemoryScore]):
    """A conversation's rows, by memory: from its stash, in place of those of the host's store."""


async def score_matrix(run: MemoryRun) -> None:
    """Score each memory over the whole conversation: at most one call more than memories.

    With ``hold``, as many again, and those that confirm what does not add up. The last memory goes
    first: its prompt shares the longest prefix with the baseline, which the server may still have.
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
        await ensure_tested(run.scorer, run.settings.server, await whole_prompt(context), run.usage)
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

    async def require_unchanged() -> None:
        if await _weights(run) != weights:
            raise ScorerError(REPLACED)

    async def measure(memory: Memory) -> Measured:
        if memory.key in kept:
            row = kept[memory.key]
            run.compared.resume(window, skip_only(memory.key), row.divergences)
            return row.divergences, row.hold if run.options.hold else None
        drop, hold = _parts(grown, memory)
        found = await run.compared.drop(window, skip_only(memory.key), judging, drop)
        await require_unchanged()
        if not run.options.hold:
            return found, None
        try:
            return found, await run.compared.hold(window, memory.key, judging, hold)
        # What was measured of the memory is not lost with it.
        except Exception as error:
            return found, error

    async def emit(memories: Sequence[Memory], take: Callable[[Memory, Divergences], None]) -> None:
        def show_and_take(memory: Memory, row: Divergences) -> None:
            _show_row(run, memory, row)
            take(memory, row)

        of = (lambda _: None) if weights is None else fingerprints.of
        await run.score_each(memories, "full", measure, show_and_take, of)

    ready = [it for it in run.memories[::-1] if it.key in kept or it in chosen]
    screened = screens and bool(chosen)
    spans = await _spans(run, window) if screened or run.options.placebo else NO_SPANS
    if screened:
        await _screen(run, window, ready, kept, judging, spans, emit, require_unchanged)
    else:
        await emit(ready, lambda _memory, _row: None)
    if run.options.hold or screened:
        with _accounted(run):
            await confirm_interactions(run, window, require_unchanged, screened=screened)
    if run.options.placebo:
        scored = {key for key, it in run.outcomes.items() if it.status == "scored"}
        with _accounted(run, exact_too=True):
            await control_places(run, window, scored, spans, require_unchanged)


async def _spans(run: MemoryRun, window: range) -> MemorySpans:
    context = run.context
    prompts = await prompts_for(context, window, skip_none, responses(context, window))
    reuses = bool(ScorerCapabilities.of(run.scorer).reuses_prefixes)
    return await find_spans(context, window, find_memories(context), prompts, reuses=reuses)


async def _screen(
    run: MemoryRun,
    window: range,
    memories: Sequence[Memory],
    known: Collection[str],
    judging: Collection[str],
    spans: MemorySpans,
    emit: Emit,
    require_unchanged: Check,
) -> None:
    """Measure the rows that a screen points at; the others are estimated."""

    def show(done: int, total: int) -> None:
        run.activity.update(f"scoring: screen {done}/{total}", done, total)

    screening = Screening(
        run, run.options, window, memories, known, judging, spans, emit, show, require_unchanged
    )
    await screening.carry_out()
    receipt: ScreenReceipt = run.registry.stash[ScreenReceipt]
    left = [memory for memory in memories if memory.key not in run.outcomes]
    estimated = set(receipt.estimated)
    run.set_outcome([it for it in left if it.key in estimated], Outcome("estimated"))
    run.set_outcome([it for it in left if it.key not in estimated], Outcome("left-out"))


@contextmanager
def _accounted(run: MemoryRun, *, exact_too: bool = False) -> Iterator[None]:
    """Add to the receipt of the run's screen, if it has one, what the body takes.

    ``exact_too``: a matrix of exact rows would have taken that as well.
    """
    before = spent_tokens(run.usage)
    try:
        yield
    finally:
        receipt: ScreenReceipt | None = run.registry.stash.get(ScreenReceipt)
        if receipt is not None:
            more = spent_tokens(run.usage).minus(before).in_unit(receipt.unit)
            run.registry.stash[ScreenReceipt] = replace(
                receipt,
                spent_tokens=receipt.spent_tokens + more,
                exact_tokens=receipt.exact_tokens + more * exact_too,
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
    rows = run.registry.stash.get(StoredRows)
    if rows is None:
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


def _parts(grown: Mapping[str, MemoryScore], memory: Memory) -> tuple[Divergences, Divergences]:
    """Return what is known of a memory's row, and of its row alone."""
    row = grown.get(memory.key)
    return ((), ()) if row is None else (row.divergences, row.hold or ())


def _show_row(run: MemoryRun, memory: Memory, row: Divergences) -> None:
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
