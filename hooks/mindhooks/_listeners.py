"""Running a plugin's functions so that nothing they do reaches anybody else."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Mapping

from mindhooks._complaints import complain, log
from mindhooks._implementations import Implementation
from mindhooks._tasks import being_cancelled, current_run

Arguments = Mapping[str, object]


class AsyncListener:
    """An ``async def`` implementation: told of one event at a time, for a limited time each."""

    def __init__(self, implementation: Implementation, time_limit: Callable[[], float]) -> None:
        self.implementation = implementation
        self._time_limit = time_limit
        self._waiting: deque[Arguments] = deque()
        self.worker: asyncio.Task[None] | None = None
        """The task that works off the queue, while there is something in it."""
        # Cancelled ones that have not ended yet: asyncio itself holds tasks only weakly.
        self._abandoned: set[asyncio.Task[None]] = set()

    async def tell(self, arguments: Arguments) -> None:
        """Await the implementation, for at most the time limit; what it raises is logged."""
        call = asyncio.create_task(self._guarded(arguments))
        limit = self._time_limit()
        try:
            await asyncio.wait({call}, timeout=limit)
        finally:
            if not call.done():
                self._abandoned.add(call)
                call.add_done_callback(self._abandoned.discard)
                call.cancel()
        if not call.done():
            log.error("%s: took longer than %g s and was cancelled", self.implementation, limit)

    def enqueue(self, arguments: Arguments) -> None:
        """Have the implementation told after all it was told of before, without waiting for it."""
        self._waiting.append(arguments)
        if self.worker is None:
            # Not in the run that emits: what the listener does is not voided with that run.
            context = contextvars.copy_context()
            context.run(current_run.set, None)
            self.worker = asyncio.create_task(self._work(), context=context)

    def drop(self) -> None:
        """Forget what is queued and cancel what runs; says how much was lost."""
        if self.worker is not None:
            lost = len(self._waiting) + 1
            log.error("%s: dropped %d undelivered at close", self.implementation, lost)
            self._waiting.clear()
            self.worker.cancel()

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self.tell(self._waiting.popleft())
        finally:
            self.worker = None

    async def _guarded(self, arguments: Arguments) -> None:
        try:
            await self.implementation.call(arguments)
        except KeyboardInterrupt:
            raise
        except asyncio.CancelledError as error:
            if not being_cancelled():
                complain(str(self.implementation), error)
        # Not only Exception: a SystemExit that leaves a task stops the host's event loop.
        except BaseException as error:
            complain(str(self.implementation), error)
