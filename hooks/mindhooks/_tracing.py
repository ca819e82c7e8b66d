"""Logger ``mindhooks.trace``: at DEBUG, one line for each hook call.

It says what was called with what, in short, who was told in which order, what each returned, and
how long it took; never a memory's text.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from reprlib import Repr

from mindhooks._specs import Trigger
from mindhooks._values import FinetuneCandidate, MemoryScore, Run

Note = Callable[[str], object]
"""Takes what happened in a hook call, for its line."""

_short = Repr()
_short.maxstring = 60


@contextmanager
def trace_call(hook: str, arguments: Mapping[str, object]) -> Iterator[Note]:
    """Log one line on the hook call that the body makes, of the steps that the body notes."""
    # Not made by an import, which has no side effect.
    log = logging.getLogger("mindhooks.trace")
    if not log.isEnabledFor(logging.DEBUG):
        yield list[str]().append
        return
    steps: list[str] = []
    started = time.perf_counter()
    try:
        yield steps.append
    finally:
        told = ", ".join(steps) or "nobody is listening"
        shown = ", ".join(map(_short.repr, _shorten(arguments)))
        elapsed = format_elapsed(started).strip("()")
        log.debug("trace: %s(%s) in %s: %s", hook, shown, elapsed, told)


def format_elapsed(started: float) -> str:
    """Return the time since ``started`` (of ``time.perf_counter``) as ``"(1.5 ms)"``."""
    return f"({1000 * (time.perf_counter() - started):.1f} ms)"


def format_result(result: object) -> str:
    """Return an answer as it is, of anything else its type: its text may be a memory's."""
    return str(result) if isinstance(result, Trigger | None) else type(result).__name__


def _shorten(arguments: Mapping[str, object]) -> list[object]:
    match arguments:
        case {"command": command}:
            return [str(command)]
        case {"score": MemoryScore(key=key, score=score)}:
            return [key, score]
        case {"candidate": FinetuneCandidate(node_id=node_id)}:
            return [node_id]
        case {"stats": stats, "run": Run(command=command)}:
            return [command, None if stats is None else type(stats).__name__]
    return []
