"""One matrix of a conversation, screened or exact, with its tokens and its seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mindhooks import Context, MemoryStats, Registry, Scorer, Trigger
from mindhooks.testing import RecordingListener, StubMind
from mindscore.flows.memory import MemoryScoring
from mindscore.measure.screening.receipt import ScreenReceipt

STRONG = 1.0
"""Nats from which on a memory's effect on a response counts as strong."""

LARGE = 3.0
"""Nats from which on a memory's largest effect counts as large."""


@dataclass(frozen=True, slots=True)
class Run:
    """The rows, the statistics and the receipt of a matrix."""

    rows: Mapping[str, Mapping[str, float]]
    stats: MemoryStats
    receipt: ScreenReceipt | None
    seconds: float


async def run_matrix(context: Context, scorer: Scorer, *, screen: bool, **memory: Any) -> Run:
    """Measure the matrix as a host does; nothing is recorded."""
    mind, heard = StubMind(context), RecordingListener()
    started = time.process_time()
    # On cores that others use a prompt may take very long, and nobody waits for it.
    tables = {"memory": memory, "server": {"deadline_s": 86_400.0}}
    async with Registry(mind, tables, scorer=scorer) as registry:
        registry.register(MemoryScoring({"screen": screen}), name="memory-scoring")
        registry.register(heard)
        if registry.dispatch("score-full") != {"memory-scoring": Trigger.STARTED}:
            raise RuntimeError("the matrix was not started")
        await registry.wait_idle()
        receipt = registry.stash.get(ScreenReceipt)
    stats = mind.state.memory_last_run
    if stats is None or stats.error is not None:
        raise RuntimeError(f"the matrix failed: {stats and stats.error}")
    rows = {it.key: {cell.node_id: cell.signed for cell in it.divergences} for it in heard.scores}
    return Run(rows, stats, receipt, time.process_time() - started)
