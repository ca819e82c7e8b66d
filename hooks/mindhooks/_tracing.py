"""Logger ``mindhooks.trace``: at DEBUG, one line for each hook call.

It says what was called with what, in short, who was told in which order, what each returned, and
how long it took; never a memory's text.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from reprlib import Repr
from typing import Any

from mindhooks._implementations import Implementation
from mindhooks._listeners import Arguments, AsyncListener
from mindhooks._specs import Trigger
from mindhooks._values import FinetuneCandidate, MemoryScore

_short = Repr()
_short.maxstring = 60

_steps: ContextVar[list[str] | None] = ContextVar("mindhooks_trace", default=None)
"""What the plugins did so far in the hook call that is under way, where it is traced."""


@contextmanager
def hook_call(hook: str, arguments: Arguments) -> Iterator[None]:
    """The body calls ``hook`` with ``arguments``."""
    # Not made by an import, which has no side effect.
    log = logging.getLogger("mindhooks.trace")
    if not log.isEnabledFor(logging.DEBUG):
        yield
        return
    outer = _steps.get()
    steps: list[str] = []
    _steps.set(steps)
    started = time.perf_counter()
    try:
        yield
    finally:
        # Not by a token: an emission that is given up may end in another context.
        _steps.set(outer)
        told = ", ".join(steps) or "nobody is listening"
        shown = ", ".join(map(_short.repr, _in_short(arguments)))
        log.debug("trace: %s(%s) in %s: %s", hook, shown, _since(started), told)


def traced(implementation: Implementation) -> Implementation:
    """The same; one that is called in the hook call itself says there what it returned."""
    if implementation.is_async:
        return implementation
    function = implementation.function
    name = implementation.origin.name

    def call(*positional: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            result = function(*positional, **named)
        except BaseException as error:
            _note(f"{name} raised {type(error).__name__} ({_since(started)})")
            raise
        if implementation.is_wrapper:
            _note(f"{name} wraps the others")
        else:
            _note(f"{name} returned {_outcome(result)} ({_since(started)})")
        return result

    return replace(implementation, function=call)


class TracedListener(AsyncListener):
    """Says in the hook call how long it was awaited, or that it was queued."""

    async def tell(self, arguments: Arguments) -> None:
        """As ``AsyncListener.tell``."""
        started = time.perf_counter()
        try:
            await super().tell(arguments)
        finally:
            _note(f"{self._name} awaited ({_since(started)})")

    def enqueue(self, arguments: Arguments) -> None:
        """As ``AsyncListener.enqueue``."""
        steps = _steps.get()
        _note(f"{self._name} queued")
        # The queue is worked off in a copy of this context, when this call has long ended.
        _steps.set(None)
        super().enqueue(arguments)
        _steps.set(steps)

    @property
    def _name(self) -> str:
        return self.implementation.origin.name


def _in_short(arguments: Arguments) -> Sequence[object]:
    match arguments:
        case {"command": command}:
            return [str(command)]
        case {"score": MemoryScore(key=key, score=score)}:
            return [key, score]
        case {"candidate": FinetuneCandidate(node_id=node_id)}:
            return [node_id]
    return []


def _note(step: str) -> None:
    steps = _steps.get()
    if steps is not None:
        steps.append(step)


def _outcome(result: object) -> str:
    # Not the text of anything else: it may be a memory's.
    return str(result) if isinstance(result, Trigger | None) else type(result).__name__


def _since(started: float) -> str:
    return f"{1000 * (time.perf_counter() - started):.1f} ms"
