"""memory-scoring: which memories matter, in the background or as the full matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mindhooks import Mind, MindCommand, Registry, Trigger, hookimpl
from mindscore.config import MemoryScoringOptions, parse_table
from mindscore.flows.incremental import score_due
from mindscore.flows.matrix import score_matrix
from mindscore.flows.memory_run import MemoryRun

NAME = "memory-scoring"
FLOWS = {MindCommand.SCORE: score_due, MindCommand.SCORE_FULL: score_matrix}


class MemoryScoring:
    """Answers ``score`` and ``score-full``, one run at a time: ``BUSY`` while one is going."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._options = parse_table(table, MemoryScoringOptions, f"plugins.settings.{NAME}")

    @hookimpl
    def on_trigger(self, command: str, mind: Mind, registry: Registry) -> Trigger | None:
        if command not in FLOWS:
            return None
        run = MemoryRun(command, mind, registry, self._options)
        handle = registry.task_handle(NAME)
        return handle.trigger_if_idle(lambda: run.carry_out(FLOWS[MindCommand(command)]))
