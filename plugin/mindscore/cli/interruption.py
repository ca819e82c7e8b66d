"""Ctrl-C ends a command soon, whatever it is busy with."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

DONE = 0
FAILED = 1
"""The run failed, wholly or for some memories, or nobody took the command."""
WRONG = 2
"""Wrong usage, configuration or input."""
INTERRUPTED = 130


T = TypeVar("T")

GRACE_S = 1.5
"""How long a command may take to end once it is interrupted."""


class InterruptedRunError(Exception):
    """Ctrl-C; the text says what was done until then."""


def run_until_interrupted(
    work: Callable[[], Coroutine[Any, Any, T]], so_far: Callable[[], str]
) -> T:
    """``asyncio.run`` that ends at most ``GRACE_S`` after Ctrl-C.

    If need be, by leaving the process:
    a plugin may not heed being cancelled, and a thread cannot be stopped from outside. ``so_far``
    says what was done.

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


def leave_in(grace_s: float, leaving: Callable[[], None]) -> threading.Timer:
    """Have ``leaving`` end the process after so many seconds, unless the timer is cancelled."""
    timer = threading.Timer(grace_s, leaving)
    timer.daemon = True
    timer.start()
    return timer


def leave(words: str | None, status: int) -> NoReturn:
    """End the process as it is, with a line on standard error if there is something to say."""
    if words is not None:
        sys.stderr.write(f"mindscore: {words}\n")
        sys.stderr.flush()
    os._exit(status)


class _LastMoment:
    """Ends the process ``GRACE_S`` after ``begin``, also where its own end takes so long."""

    def __init__(self, so_far: Callable[[], str]) -> None:
        self._so_far = so_far
        self._told = False

    def begin(self) -> None:
        leave_in(GRACE_S, self._leave)

    def words(self) -> str:
        """What is said of the interruption, for somebody to say it."""
        self._told = True
        return f"interrupted{self._so_far()}"

    def _leave(self) -> None:
        if self._told:
            leave(None, INTERRUPTED)
        if sys.stderr.isatty():
            # Progress has hidden the cursor.
            sys.stderr.write("\x1b[?25h")
        leave(self.words(), INTERRUPTED)
