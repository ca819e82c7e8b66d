"""A run's statistics, kept in the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from mindhooks import FinetuneStats, MemoryStats, MindhooksError, Registry
from mindscore.config import parse_settings
from mindscore.errors import reason
from mindscore.store import History, Run

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
        log.debug("the run is not kept: %s", reason(error))
