"""The hooks that a plugin may implement, with their commands and answers."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from mindhooks._registry import Registry
    from mindhooks._values import (
        FinetuneCandidate,
        FinetuneStats,
        MemoryScore,
        MemoryStats,
        Mind,
        Run,
    )

PROJECT = "mindhooks"
"""Project name of the markers, and the entry-point group of plugins."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class MindCommand(StrEnum):
    """The commands that the default plugins answer; any other string may be dispatched too."""

    SCORE = "score"
    SCORE_FULL = "score-full"
    SCORE_FINETUNE = "score-finetune"


class Trigger(StrEnum):
    """A plugin's answer to a command that it took."""

    STARTED = "started"
    BUSY = "busy"
    RESTARTED = "restarted"


@hookspec
def on_trigger(command: str, mind: Mind, registry: Registry) -> Trigger | None:
    """Take a command, or leave it to others.

    Called once per dispatched command, for every plugin, on the loop's thread. Not async: it
    returns at once, and gives its work to a ``TaskHandle`` (``registry.task_handle(name)``), which
    also decides what a second trigger does while the first still runs.

    Args:
        command: a ``MindCommand``, or any other string a host dispatches.
        mind: the host. Take ``await mind.context()`` inside the task.
        registry: settings, the shared scorer, runs, emission. Inside the task, open a run with
            ``async with registry.run(command) as run:``.

    Returns:
        ``Trigger.STARTED``, ``BUSY`` or ``RESTARTED``; ``None`` for 'not mine'.
    """


@hookspec
def on_score(score: MemoryScore, mind: Mind, registry: Registry, run: Run | None) -> Any:
    """Hear of a memory's score.

    Called once per memory, as soon as its score is known. Plain or ``async def``; what it returns
    is ignored. A plain one runs on the loop's thread and must be quick. An ``async def`` has a
    queue of its own, so that nobody waits for it; one marked ``tryfirst`` is awaited before any
    other listener is told. Async ones are cancelled after ``plugins.listener_timeout_s``.

    Args:
        score: frozen; ``score.mode`` tells a window's score from a row of the matrix.
        mind: the host.
        registry: the registry that emits.
        run: the flow's run that emits; ``None`` where a host emits outside of one.
    """


@hookspec
def on_candidate(
    candidate: FinetuneCandidate, mind: Mind, registry: Registry, run: Run | None
) -> Any:
    """Hear of a response that is worth training on.

    Called once per candidate, as soon as it is ready, its alternate included. Plain or
    ``async def``, by the rules of ``on_score``; what it returns is ignored.

    Args:
        candidate: frozen.
        mind: the host.
        registry: the registry that emits.
        run: the flow's run that emits; ``None`` where a host emits outside of one.
    """


@hookspec
def on_run_end(
    stats: MemoryStats | FinetuneStats | None, mind: Mind, registry: Registry, run: Run
) -> Any:
    """Hear that a run of a flow has ended.

    Called once per run, however it ended: done, failed, cancelled, or voided by a new trigger or
    the registry's close; then before the next run begins. Plain or ``async def``, by the rules of
    ``on_score``; what it returns is ignored. Nothing that the run's own coroutine emits comes
    later.

    Args:
        stats: what the flow reported last; ``None`` where it reported nothing.
        mind: the host.
        registry: the registry that the run was opened in.
        run: the run that ended; the same object that its scores and candidates came with.
    """


SPECS = {spec.__name__: spec for spec in (on_trigger, on_score, on_candidate, on_run_end)}
