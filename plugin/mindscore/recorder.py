"""score-recorder: keeps what the flows find, in the store and on the host's screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mindhooks import (
    FinetuneCandidate,
    MemoryScore,
    Mind,
    MindCommand,
    Registry,
    emitting_registry,
    hookimpl,
)
from mindscore.config import parse_settings
from mindscore.flows.record import record_runs_of
from mindscore.store import Store
from mindscore.unkept import unkept


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
