"""The hooks: what a plugin may implement."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from mindhooks._mind import Mind
    from mindhooks._registry import Registry
    from mindhooks._values import FinetuneCandidate, MemoryScore

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
    """What a plugin did with a command."""

    STARTED = "started"
    BUSY = "busy"
    RESTARTED = "restarted"


@hookspec
def on_trigger(command: str, mind: Mind, registry: Registry) -> Trigger | None:
    """A command was dispatched.

    Called once per dispatched command, for every plugin, on the loop's thread. Not async: it
    returns at once, and gives its work to a ``TaskHandle`` (``registry.task_handle(name)``), which
    also decides what a second trigger does while the first still runs.

    Args:
        command: a ``MindCommand``, or any other string a host dispatches.
        mind: the host. Take ``await mind.context()`` inside the task.
        registry: settings, the shared scorer, emission. Read ``registry.settings`` inside the task.

    Returns:
        ``Trigger.STARTED``, ``BUSY`` or ``RESTARTED``; ``None`` for 'not mine'.
    """


@hookspec
def on_score(score: MemoryScore, mind: Mind) -> Any:
    """A memory was scored.

    Called once per memory, as soon as its score is known. Plain or ``async def``; what it returns
    is ignored. A plain one runs on the loop's thread and must be quick. An ``async def`` has a
    queue of its own, so that nobody waits for it; one marked ``tryfirst`` is awaited before any
    other listener is told. Async ones are cancelled after ``plugins.listener_timeout_s``.

    Args:
        score: frozen; ``score.mode`` tells a window's score from a row of the matrix.
        mind: the host.
    """


@hookspec
def on_candidate(candidate: FinetuneCandidate, mind: Mind) -> Any:
    """A response was found that is worth training on.

    Called once per candidate, as soon as it is ready, its alternate included. Plain or
    ``async def``, by the rules of ``on_score``; what it returns is ignored.

    Args:
        candidate: frozen.
        mind: the host.
    """


SPECS = {spec.__name__: spec for spec in (on_trigger, on_score, on_candidate)}
