"""End a command soon after Ctrl-C or SIGTERM, also while it computes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

DONE = 0
FAILED = 1
"""The run failed, wholly or for some memories, or no plugin took the command."""
WRONG = 2
"""Wrong usage, configuration or input."""
INTERRUPTED = 130

T = TypeVar("T")

GRACE_S = 1.0
"""Seconds that a command may take to end once it is interrupted."""

SERVER_GRACE_S = 5.0
"""Seconds that a server may take to end."""


class InterruptedRunError(Exception):
    """Ctrl-C; the text says what was done until then."""


def run_until_interrupted(
    work: Callable[[], Coroutine[Any, Any, T]], so_far: Callable[[], str]
) -> T:
    """Run ``work`` as ``asyncio.run`` does, and end at most ``GRACE_S`` after Ctrl-C.

    If need be, by leaving the process: a plugin may ignore its cancellation, and a thread cannot be
    stopped from outside. ``so_far`` says what was done.

    Raises:
        InterruptedRunError: it was interrupted.
    """
    last = _LastMoment(so_far)

    async def watched() -> T:
        working = asyncio.create_task(work())
        try:
            await asyncio.wait({working})
        except asyncio.CancelledError:
            last.begin()
            working.cancel()
            await asyncio.wait({working})
            raise
        return working.result()

    try:
        return asyncio.run(watched())
    except KeyboardInterrupt:
        raise InterruptedRunError(last.words()) from None


class Deadline:
    """A context that must end within ``SERVER_GRACE_S`` of ``start``, or the process ends.

    A forward pass of a large model cannot be stopped, and nobody waits for it.
    """

    def __init__(self) -> None:
        self._timers: list[threading.Timer] = []

    def __enter__(self) -> Deadline:
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()

    def start(self, words: str | None = None, status: int = DONE) -> None:
        """Begin to count; a process that has to be left says ``words`` and has this ``status``."""
        self._timers.append(_call_after(SERVER_GRACE_S, lambda: _leave(words, status)))


def _call_after(seconds: float, function: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer


def _leave(words: str | None, status: int) -> NoReturn:
    """End the process as it is, with a line on standard error if there is something to say."""
    if words is not None:
        sys.stderr.write(f"mindscore: {words}\n")
        sys.stderr.flush()
    os._exit(status)


class _LastMoment:
    """Ends the process ``GRACE_S`` after ``begin`` if it has not ended itself."""

    def __init__(self, so_far: Callable[[], str]) -> None:
        self._so_far = so_far
        self._told = False

    def begin(self) -> None:
        _call_after(GRACE_S, self._end)

    def words(self) -> str:
        """Return what to say of the interruption; it is then taken as said."""
        self._told = True
        return f"interrupted{self._so_far()}"

    def _end(self) -> None:
        if self._told:
            _leave(None, INTERRUPTED)
        from mindscore.display.screen import Screen

        Screen.restore_terminal()
        _leave(self.words(), INTERRUPTED)
