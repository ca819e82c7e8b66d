"""score-recorder: store what the flows find, and show it on the host's screen."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from mindhooks import (
    Context,
    FinetuneCandidate,
    FinetuneStats,
    MemoryScore,
    MemoryStats,
    Mind,
    MindCommand,
    MindhooksError,
    Registry,
    Run,
    hookimpl,
)
from mindscore._util.errors import format_error
from mindscore.config.settings import Settings, parse_settings
from mindscore.flows.confirming import Untried
from mindscore.flows.seen import ContextFacts, source_of
from mindscore.measure.interactions import Interaction, RedundantGroup
from mindscore.measure.placebo import PlaceboControl
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.store import NO_NOTES, History, Notes, Reviews, RunRecord, Speed, Store, Unlisted

log = logging.getLogger(__name__)

CANCELLED = "cancelled"
"""``error`` in the statistics of a run that was cancelled."""

MOST_FAILED_RUNS = 100
"""Runs whose failures a registry remembers."""


class StoreFailures:
    """Scores and candidates of one run that could not be stored, for the run's statistics.

    Each counts as failed until it is stored. One that is still being stored when its listener's
    time is up may be stored yet: ``wait`` for it. ``reason`` is why the first could not be stored.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.reason: str | None = None
        self._latest: str | None = None
        self._pending: set[asyncio.Task[None]] = set()

    async def store(self, noun: Literal["score", "candidate"], work: Awaitable[None]) -> None:
        """Await ``work``, which stores one ``noun``; it goes on where this is cancelled."""

        async def attempt() -> None:
            with self.storing(noun):
                await work

        task = asyncio.create_task(attempt(), name=f"storing a {noun}")
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        # Retrieved here, so that nobody is told of it twice where this has been cancelled.
        task.add_done_callback(lambda it: it.cancelled() or it.exception())
        await asyncio.shield(task)

    async def wait(self) -> None:
        """Wait for what is still being stored: as long as a transaction waits for others."""
        if self._pending:
            await asyncio.wait(self._pending)

    @property
    def error(self) -> str | None:
        """The failures in words, or ``None`` where everything was stored."""
        counts = {noun: count for noun, count in self.counts.items() if count}
        if not counts:
            return None
        why = self.reason or "the store took longer than plugins.listener_timeout_s"
        what = [f"{count} {noun}{'s' * (count > 1)}" for noun, count in counts.items()]
        return f"{' and '.join(what)} could not be kept: {why}"

    def beside(self, error: str | None) -> str | None:
        """Return ``error`` and the failures in one line, or ``None`` where there is neither."""
        return "; ".join(filter(None, (error, self.error))) or None

    @contextmanager
    def storing(self, noun: Literal["score", "candidate"]) -> Iterator[None]:
        """Count the body, which stores one ``noun``, as failed unless it succeeds.

        Its exception is raised on, unless the failure before had the same reason.
        """
        self.counts[noun] += 1
        try:
            yield
        except Exception as error:
            why = format_error(error)
            is_news, self._latest = why != self._latest, why
            self.reason = self.reason or why
            if is_news:
                raise
        else:
            self.counts[noun] -= 1
            self._latest = None


def store_failures(registry: Registry, run: Run | None) -> StoreFailures:
    """Return what of ``run`` could not be stored; ``None``: of what a host emits outside of one."""
    by_run: dict[str, StoreFailures] = registry.stash.setdefault(StoreFailures, {})
    if len(by_run) >= MOST_FAILED_RUNS:
        del by_run[next(iter(by_run))]
    return by_run.setdefault(run.id if run is not None else "", StoreFailures())


class ScoreRecorder:
    """The plugin that stores scores, candidates and runs.

    It is awaited before other listeners, so that they hear of what is stored already.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        del table

    @hookimpl(tryfirst=True)
    async def on_score(
        self, score: MemoryScore, mind: Mind, registry: Registry, run: Run | None
    ) -> None:
        if score.mode == "incremental":
            mind.state.memory_scores[score.key] = score.score
            mind.changed()
        facts = await context_facts(mind, registry, run)
        work = _record_score(score, facts, registry, run)
        await store_failures(registry, run).store("score", work)

    @hookimpl(tryfirst=True)
    async def on_candidate(
        self, candidate: FinetuneCandidate, mind: Mind, registry: Registry, run: Run | None
    ) -> None:
        unlisted = await _unlisted(registry, run)
        if unlisted is None or not unlisted.has(candidate):
            mind.state.finetune_candidates.append(candidate)
            mind.changed()
        facts = await context_facts(mind, registry, run)
        work = _record_candidate(candidate, facts.context.id, registry, run)
        await store_failures(registry, run).store("candidate", work)

    @hookimpl(tryfirst=True)
    async def on_run_end(
        self, stats: MemoryStats | FinetuneStats | None, mind: Mind, registry: Registry, run: Run
    ) -> None:
        registry.stash.pop(Unlisted, None)
        await _remove_unlisted(mind, registry, run)
        if stats is None:
            return
        speed = run_speeds(registry).get(run.id)
        if stats.error != CANCELLED:
            await _record_notes(registry, run, stats)
        try:
            history = History(parse_settings(run.settings).store)
            await history.record_run(_run_record(run, stats, run_tokens(registry).get(run.id)))
            if speed is not None and stats.calls and stats.error is None:
                await history.record_speed(speed)
        # The run itself has not failed; it says what else could not be stored.
        except MindhooksError as error:
            log.debug("the run is not kept: %s", format_error(error))


async def _unlisted(registry: Registry, run: Run | None) -> Unlisted | None:
    """Return the candidates that lists leave out, read once a run; ``None``: it is not known."""
    found: Unlisted | None = registry.stash.get(Unlisted)
    if run is not None and found is not None:
        return found
    try:
        settings, model = await _settings_and_model(registry, run)
        found = await Reviews(settings.store).unlisted(model)
    except MindhooksError as error:
        log.debug("the decisions on candidates are not known: %s", format_error(error))
        return None
    if run is not None:
        registry.stash[Unlisted] = found
    return found


async def _remove_unlisted(mind: Mind, registry: Registry, run: Run) -> None:
    """Remove, from the host's screen, candidates that were decided on since they were found."""
    shown = mind.state.finetune_candidates
    if not shown:
        return
    unlisted = await _unlisted(registry, run)
    registry.stash.pop(Unlisted, None)
    if unlisted is not None and any(unlisted.has(it) for it in shown):
        shown[:] = [it for it in shown if not unlisted.has(it)]
        mind.changed()


def snapshots(registry: Registry) -> dict[str, ContextFacts]:
    """Return the conversation that each run under way has read, by the run's id."""
    found: dict[str, ContextFacts] = registry.stash.setdefault(snapshots, {})
    return found


def run_speeds(registry: Registry) -> dict[str, Speed]:
    """Return what the calls of each run that ends took, by the run's id."""
    found: dict[str, Speed] = registry.stash.setdefault(run_speeds, {})
    return found


def run_tokens(registry: Registry) -> dict[str, int]:
    """Return the tokens that each run that ends has sent, by the run's id."""
    found: dict[str, int] = registry.stash.setdefault(run_tokens, {})
    return found


async def context_facts(mind: Mind, registry: Registry, run: Run | None) -> ContextFacts:
    """Return what ``run`` measures; of another's flow, what its host says now.

    A host that fails has no say in what is stored: the conversation is not known then.
    """
    if run is not None and run.id in snapshots(registry):
        return snapshots(registry)[run.id]
    try:
        context = await mind.context()
    except Exception as error:
        log.debug("the conversation is not known: %s", format_error(error))
        context = Context((), (), ())
    return ContextFacts(context, source_of(mind))


async def _record_score(
    score: MemoryScore, facts: ContextFacts, registry: Registry, run: Run | None
) -> None:
    settings, model = await _settings_and_model(registry, run)
    store, conversation = Store(settings.store), facts.context.id
    text_hash = facts.text_hashes.get(score.key, "")
    seen = facts.seen(score, keep_texts=settings.store.keep_texts)
    if score.mode == "full":
        await store.record_row(
            score, model, conversation=conversation, text_hash=text_hash, seen=seen
        )
    else:
        await store.record_score(
            score,
            model,
            settings.memory.ewma_alpha,
            conversation=conversation,
            text_hash=text_hash,
            run=None if run is None else run.id,
            seen=seen,
        )


async def _record_notes(registry: Registry, run: Run, stats: MemoryStats | FinetuneStats) -> None:
    """Keep what a matrix came with: a screen's receipt and estimates, a control of the places.

    Memories that hide or need each other, too, where the run looked for them. Without the
    estimates, advice would be on what stood out alone.
    """
    stash, facts = registry.stash, snapshots(registry).get(run.id)
    if run.command != MindCommand.SCORE_FULL or facts is None or isinstance(stats, FinetuneStats):
        return
    receipt: ScreenReceipt | None = stash.get(ScreenReceipt)
    notes = Notes(receipt, stash.get(PlaceboControl))
    if (groups := stash.get(RedundantGroup)) is not None:
        notes = replace(notes, interactions=facts.interactions(groups, stash[Interaction]))
    if not notes:
        return
    settings, when = parse_settings(run.settings), time.time()
    store, keep_texts = Store(settings.store), settings.store.keep_texts
    id_ = facts.context.id
    try:
        earlier = (await store.notes(run.model, id_)).get(id_, NO_NOTES).interactions
        if notes.interactions is not None and earlier is not None:
            measured = {key for key, it in stats.outcomes.items() if it.status == "scored"}
            its, untried = facts.holding_still(earlier), stash.get(Untried, Untried(())).sets
            both = notes.interactions.beside(its, measured, untried)
            notes = replace(notes, interactions=both)
        if receipt is not None:
            await store.add_evidence(facts.estimates(receipt, run.model, when))
            texts = facts.memory_texts(receipt.estimated, when, keep_texts=keep_texts)
            await store.record_texts(texts)
        await store.record_notes(run.model, id_, notes, when)
    except MindhooksError as error:
        what = "notes on the matrix" if receipt is None else "screen's receipt and estimates"
        log.warning("the %s could not be kept: %s", what, format_error(error))


async def _record_candidate(
    candidate: FinetuneCandidate, conversation: str, registry: Registry, run: Run | None
) -> None:
    settings, model = await _settings_and_model(registry, run)
    await Store(settings.store).record_candidate(candidate, model, conversation=conversation)


async def _settings_and_model(registry: Registry, run: Run | None) -> tuple[Settings, str]:
    if run is not None:
        return parse_settings(run.settings), run.model
    return parse_settings(registry.settings), (await registry.scorer()).model


def _run_record(run: Run, stats: MemoryStats | FinetuneStats, sent_tokens: int | None) -> RunRecord:
    threshold = largest = None
    if isinstance(stats, MemoryStats):
        found = sum(outcome.status == "scored" for outcome in stats.outcomes.values())
        considered = len(stats.outcomes)
    else:
        found, considered = stats.above_threshold, stats.responses_considered
        threshold, largest = stats.threshold, stats.max_divergence
    return RunRecord(
        command=run.command,
        model=run.model,
        started_at=run.started_at,
        seconds=stats.seconds,
        calls=stats.calls,
        prompt_tokens=stats.prompt_tokens,
        computed_tokens=stats.computed_tokens,
        found=found,
        considered=considered,
        error=stats.error,
        threshold=threshold,
        max_divergence=largest,
        sent_tokens=sent_tokens,
    )
