"""A command of its own, ``acme-census``, as a module: counts the conversation's messages."""

from __future__ import annotations

from mindhooks import Mind, Registry, Trigger, hookimpl

counted: list[int] = []


@hookimpl
def on_trigger(command: str, mind: Mind, registry: Registry) -> Trigger | None:
    if command != "acme-census":
        return None

    async def count() -> None:
        counted.append(len((await mind.context()).conversation))

    return registry.task_handle("acme-census").trigger_if_idle(count)
