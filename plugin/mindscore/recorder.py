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
from mindscore.config import Settings, parse_settings
from mindscore.store import Store


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
        if is_first or not mind.state.scoring_in_flight:
            self._for_scores = registry.settings
        if is_first or command not in (MindCommand.SCORE, MindCommand.SCORE_FULL):
            self._for_candidates = registry.settings

    @hookimpl(tryfirst=True)
    async def on_score(self, score: MemoryScore, mind: Mind) -> None:
        if score.mode == "full":
            settings, model = await self._where(self._for_scores)
            await Store(settings.store).record_row(score, model)
            return
        mind.state.memory_scores[score.key] = score.score
        mind.changed()
        settings, model = await self._where(self._for_scores)
        await Store(settings.store).record_score(score, model, settings.memory.ewma_alpha)

    @hookimpl(tryfirst=True)
    async def on_candidate(self, candidate: FinetuneCandidate, mind: Mind) -> None:
        mind.state.finetune_candidates.append(candidate)
        mind.changed()
        settings, model = await self._where(self._for_candidates)
        await Store(settings.store).record_candidate(candidate, model)

    async def _where(self, tables: Mapping[str, Any]) -> tuple[Settings, str]:
        registry = self._registry
        if registry is None:
            # Emitted by a host, before any command.
            registry = emitting_registry()
            tables = registry.settings
        return parse_settings(tables), (await registry.scorer()).model
