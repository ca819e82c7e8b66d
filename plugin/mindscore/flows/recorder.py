"""score-recorder: keeps what the flows find, in the store and on the host's screen."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal
from weakref import WeakKeyDictionary, WeakSet

from mindhooks import (
    FinetuneCandidate,
    FinetuneStats,
    MemoryScore,
    MemoryStats,
    Mind,
    MindCommand,
    MindhooksError,
    Registry,
    emitting_registry,
    hookimpl,
)
from mindscore._util.errors import format_error
from mindscore.config.settings import parse_settings
from mindscore.store import History, Run, Store

Kind = Literal["scores", "candidates"]


class StoreFailures:
    """Scores, or candidates, of one run that the store did not take.

    ``count`` is how many, ``reason`` why the first was not. One counts from the moment it is to be
    kept until it is: so does one that the store is still busy with when its listener's time is up.
    """

    def __init__(self, kind: Kind) -> None:
        self.count = 0
        self.reason: str | None = None
        self._kind = kind
        self._latest: str | None = None

    @property
    def error(self) -> str | None:
        """What to tell an operator; ``None`` where everything was kept."""
        if not self.count:
            return None
        why = self.reason or "the store took longer than plugins.listener_timeout_s"
        what = self._kind if self.count > 1 else self._kind.removesuffix("s")
        return f"{self.count} {what} could not be kept: {why}"

    def beside(self, error: str | None) -> str | None:
        """``error``, and what could not be kept; ``None`` where there is neither."""
        return "; ".join(filter(None, (error, self.error))) or None

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Around what keeps one. A failure is raised unless the one before had the same reason."""
        self.count += 1
        try:
            yield
        except Exception as error:
            why = format_error(error)
            is_news, self._latest = why != self._latest, why
            self.reason = self.reason or why
            if is_news:
                raise
        else:
            self.count -= 1
            self._latest = None


_of_scores: WeakKeyDictionary[Registry, StoreFailures] = WeakKeyDictionary()
_of_candidates: WeakKeyDictionary[Registry, StoreFailures] = WeakKeyDictionary()
_OF = {"scores": _of_scores, "candidates": _of_candidates}


def begin(registry: Registry, kind: Kind) -> StoreFailures:
    """Count anew, for a run that begins."""
    found = _OF[kind][registry] = StoreFailures(kind)
    return found


def unkept(registry: Registry, kind: Kind) -> StoreFailures:
    """What of the run that began last, or of a host's own emissions, could not be kept."""
    return _OF[kind].get(registry) or begin(registry, kind)


log = logging.getLogger(__name__)


_recorded: WeakSet[Registry] = WeakSet()


def record_runs_of(registry: Registry) -> None:
    """Keep the runs of ``registry`` from now on: where nothing records its scores, none is kept."""
    _recorded.add(registry)


async def record_run(
    registry: Registry,
    tables: Mapping[str, Any],
    command: str,
    model: str | None,
    stats: MemoryStats | FinetuneStats,
) -> None:
    """Keep what ``command`` came to, under the settings ``tables``, where runs are recorded.

    ``model`` is ``None`` where there was no scorer. That it cannot be kept is no failure of the
    run, which says itself what else was not.
    """
    if registry not in _recorded:
        return
    try:
        settings = parse_settings(tables)
        if isinstance(stats, MemoryStats):
            scored = sum(outcome.status == "scored" for outcome in stats.outcomes.values())
            found, considered = scored, len(stats.outcomes)
        else:
            found, considered = stats.above_threshold, stats.responses_considered
        run = Run(
            command=command,
            model=model or settings.server.model,
            started_at=time.time() - stats.seconds,
            seconds=stats.seconds,
            calls=stats.calls,
            prompt_tokens=stats.prompt_tokens,
            computed_tokens=stats.computed_tokens,
            found=found,
            considered=considered,
            error=stats.error,
        )
        await History(settings.store).record_run(run)
    except MindhooksError as error:
        log.debug("the run is not kept: %s", format_error(error))


class ScoreRecorder:
    """Is awaited before other listeners: what they hear of is in the store already."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        del table
        self._registry: Registry | None = None
        self._for_scores: Mapping[str, Any] = {}
        self._for_candidates: Mapping[str, Any] = {}

    @hookimpl
    def on_trigger(self, command: str, mind: Mind, registry: Registry) -> None:
        # Takes no command. A listener is not told of the registry, whose settings and scorer say
        # where a score belongs. The settings that count are those at the start of its run: a
        # command that comes while a memory run is going starts none.
        is_first, self._registry = self._registry is None, registry
        record_runs_of(registry)
        if is_first or not mind.state.scoring_in_flight:
            self._for_scores = registry.settings
        if is_first or command not in (MindCommand.SCORE, MindCommand.SCORE_FULL):
            self._for_candidates = registry.settings

    @hookimpl(tryfirst=True)
    async def on_score(self, score: MemoryScore, mind: Mind) -> None:
        if score.mode == "incremental":
            mind.state.memory_scores[score.key] = score.score
            mind.changed()
        registry, tables = self._run_of(self._for_scores)
        with unkept(registry, "scores").keeping():
            settings, model = parse_settings(tables), (await registry.scorer()).model
            store = Store(settings.store)
            if score.mode == "full":
                await store.record_row(score, model)
            else:
                await store.record_score(score, model, settings.memory.ewma_alpha)

    @hookimpl(tryfirst=True)
    async def on_candidate(self, candidate: FinetuneCandidate, mind: Mind) -> None:
        mind.state.finetune_candidates.append(candidate)
        mind.changed()
        registry, tables = self._run_of(self._for_candidates)
        with unkept(registry, "candidates").keeping():
            settings, model = parse_settings(tables), (await registry.scorer()).model
            await Store(settings.store).record_candidate(candidate, model)

    def _run_of(self, tables: Mapping[str, Any]) -> tuple[Registry, Mapping[str, Any]]:
        """The registry that emits, and the settings of the run that it emits for."""
        if self._registry is None:
            # Emitted by a host, before any command.
            registry = emitting_registry()
            return registry, registry.settings
        return self._registry, tables
