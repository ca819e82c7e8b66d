"""Ctrl-C ends a command soon, whatever it is busy with."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mindscore.cli.status import INTERRUPTED

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


class _LastMoment:
    """Ends the process ``GRACE_S`` after ``begin``, also where its own end takes so long."""

    def __init__(self, so_far: Callable[[], str]) -> None:
        self._so_far = so_far
        self._told = False

    def begin(self) -> None:
        timer = threading.Timer(GRACE_S, self._leave)
        timer.daemon = True
        timer.start()

    def words(self) -> str:
        """What is said of the interruption, for somebody to say it."""
        self._told = True
        return f"interrupted{self._so_far()}"

    def _leave(self) -> None:
        if not self._told:
            shown = "\x1b[?25h" if sys.stderr.isatty() else ""
            sys.stderr.write(f"{shown}mindscore: {self.words()}\n")
            sys.stderr.flush()
        os._exit(INTERRUPTED)
