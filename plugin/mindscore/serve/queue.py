"""The queue before the scorer."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

RECENT = 0.3
"""Weight of the latest turn in the estimate of how long one takes."""


class TurnstileFullError(Exception):
    """Nobody else may wait; ``retry_after_s``: when a place may be free, in whole seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class RequestQueue:
    """Lets one through at a time: the smallest priority first, of equals who came first.

    At most ``limit`` wait. Who is cancelled while waiting leaves the queue.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._since: float | None = None
        self._typical_s: float | None = None

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether somebody is being served."""
        return self._since is not None

    @asynccontextmanager
    async def turn(self, priority: int = 0) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the ``with`` block.

        Raises:
            TurnstileFullError: as many wait as may.
        """
        await self._enter(priority)
        started = time.monotonic()
        try:
            yield
            self._learn(time.monotonic() - started)
        finally:
            self._pass_on()

    async def _enter(self, priority: int) -> None:
        if not self.busy:
            self._since = time.monotonic()
            return
        if len(self._waiting) >= self.limit:
            raise TurnstileFullError(self._retry_after_s())
        turn = asyncio.get_running_loop().create_future()
        place = (priority, next(self._numbers), turn)
        heapq.heappush(self._waiting, place)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # The turn came, but too late.
                self._pass_on()
            elif place in self._waiting:
                self._waiting.remove(place)
                heapq.heapify(self._waiting)
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.cancelled():
                self._since = time.monotonic()
                turn.set_result(None)
                return
        self._since = None

    def _learn(self, seconds: float) -> None:
        before = seconds if self._typical_s is None else self._typical_s
        self._typical_s = before + RECENT * (seconds - before)

    def _retry_after_s(self) -> int:
        """A place is free when one more has been served."""
        passed = time.monotonic() - self._since if self._since is not None else 0.0
        typical = passed if self._typical_s is None else self._typical_s
        return max(1, math.ceil(typical))
