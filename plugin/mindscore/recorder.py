"""score-recorder: keeps what the flows find, in the store and on the host's screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mindhooks import FinetuneCandidate, MemoryScore, Mind, MindhooksError, Registry, hookimpl
from mindscore.config import Settings, parse_settings
from mindscore.store import Store


class ScoreRecorder:
    """Is awaited before other listeners: what they hear of is in the store already."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        del table
        self._registry: Registry | None = None
        self._tables: Mapping[str, Any] = {}

    @hookimpl
    def on_trigger(self, registry: Registry) -> None:
        # Takes no command. A listener is not told of the registry, whose settings and scorer say
        # where a score belongs; the settings are those at the start of its run.
        self._registry, self._tables = registry, registry.settings

    @hookimpl(tryfirst=True)
    async def on_score(self, score: MemoryScore, mind: Mind) -> None:
        if score.mode == "full":
            settings, model = await self._where()
            await Store(settings.store).record_row(score, model)
            return
        mind.state.memory_scores[score.key] = score.score
        mind.changed()
        settings, model = await self._where()
        await Store(settings.store).record_score(score, model, settings.memory.ewma_alpha)

    @hookimpl(tryfirst=True)
    async def on_candidate(self, candidate: FinetuneCandidate, mind: Mind) -> None:
        mind.state.finetune_candidates.append(candidate)
        mind.changed()
        settings, model = await self._where()
        await Store(settings.store).record_candidate(candidate, model)

    async def _where(self) -> tuple[Settings, str]:
        if self._registry is None:
            raise MindhooksError("a score came before any command: not known where to keep it")
        return parse_settings(self._tables), (await self._registry.scorer()).model
