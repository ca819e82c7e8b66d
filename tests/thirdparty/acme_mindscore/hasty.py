"""Takes the place of memory-scoring, badly: a score without divergences, then it fails."""

from __future__ import annotations

from typing import Any

from mindhooks import MemoryScore, Mind, MindCommand, Registry, Trigger, hookimpl


class Hasty:
    """Does nothing unless its table has ``on = true``."""

    def __init__(self, table: dict[str, Any]) -> None:
        self._on = bool(table.get("on", False))

    @hookimpl
    def on_trigger(self, command: str, mind: Mind, registry: Registry) -> Trigger | None:
        if not self._on or command != MindCommand.SCORE:
            return None
        return registry.task_handle("acme-hasty").trigger_if_idle(lambda: self._run(registry))

    async def _run(self, registry: Registry) -> None:
        await registry.emit_score(MemoryScore("tea", 1.5, "incremental", ()))
        raise ValueError("in too much of a hurry")
