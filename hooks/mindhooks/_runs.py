"""The run that code is part of, known through context variables.

Child tasks and ``to_thread`` threads inherit the context of the task that starts them, and belong
to its run by that.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from mindhooks._values import FinetuneStats, MemoryStats, Run

Deliveries = set[asyncio.Task[None]]
"""Calls of awaited listeners that have not returned yet."""


@dataclass(eq=False, slots=True)
class EmissionScope:
    """One coroutine run by a ``TaskHandle``: emissions from it are dropped once it is voided."""

    voided: bool = False
    deliveries: Deliveries = field(default_factory=set)


@dataclass(eq=False, slots=True)
class OpenRun:
    """A ``Run`` between the beginning and the end of its ``async with`` block.

    ``owner`` identifies the registry. It is not the registry itself: a task or timer that outlives
    the run keeps this object alive, and must not keep a closed registry and its plugins alive too.
    """

    run: Run
    owner: object
    parent: OpenRun | None
    stats: MemoryStats | FinetuneStats | None = None
    ended: bool = False
    deliveries: Deliveries = field(default_factory=set)


current_scope: ContextVar[EmissionScope | None] = ContextVar("mindhooks_scope", default=None)
innermost_run: ContextVar[OpenRun | None] = ContextVar("mindhooks_run", default=None)


def find_run(owner: object) -> OpenRun | None:
    """Return the innermost run of the registry that ``owner`` identifies, or ``None``."""
    opened = innermost_run.get()
    while opened is not None and opened.owner is not owner:
        opened = opened.parent
    return opened


def detach_context(within: OpenRun | None = None) -> contextvars.Context:
    """Copy the context for a task that belongs to ``within`` alone and is voided with no other."""
    context = contextvars.copy_context()
    context.run(current_scope.set, None)
    context.run(innermost_run.set, within)
    return context


def copy_settings(value: Any) -> Any:
    """Copy parsed TOML: every mapping as a dict, every sequence as a list."""
    if isinstance(value, Mapping):
        return {key: copy_settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copy_settings(item) for item in value]
    return value
