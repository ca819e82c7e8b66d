"""The queue of a server that computes one request at a time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mindscore.http.refusals import RefusedError

RETRY_AFTER_S = 5
"""Seconds after which a client that found the queue full is asked to try again."""


class RequestQueue:
    """Lets one request through at a time: the smallest priority first, then the earliest.

    At most ``limit`` wait. A request that is cancelled while it waits leaves the queue.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.busy = False
        """Whether a request has its turn."""
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @property
    def queued(self) -> int:
        """The number of requests that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, priority: int = 0) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the ``with`` block.

        Raises:
            RefusedError: the queue is full.
        """
        if self.busy:
            await self._wait(priority)
        self.busy = True
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, priority: int) -> None:
        if len(self._waiting) >= self.limit:
            raise RefusedError(
                429,
                f"the queue is full; try again in {RETRY_AFTER_S} s",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
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
                # Still busy: nobody may overtake the request whose turn this is.
                turn.set_result(None)
                return
        self.busy = False
