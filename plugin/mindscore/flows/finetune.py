"""finetune-scoring: responses that depend on memories the model has not internalised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mindhooks import Mind, MindCommand, Registry, Trigger, hookimpl
from mindscore.config import FinetuneScoringOptions, parse_table
from mindscore.flows.finetune_run import FinetuneRun

NAME = "finetune-scoring"


class FinetuneScoring:
    """Answers ``score-finetune``; a run in flight is aborted for the fresh one."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        parse_table(table, FinetuneScoringOptions, f"plugins.settings.{NAME}")

    @hookimpl
    def on_trigger(self, command: str, mind: Mind, registry: Registry) -> Trigger | None:
        if command != MindCommand.SCORE_FINETUNE:
            return None
        handle = registry.task_handle(NAME)
        return handle.trigger(lambda: FinetuneRun(mind, registry).carry_out())
