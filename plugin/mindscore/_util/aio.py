"""Keep the event loop and the threads of a process fast while long work runs."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Protocol, TypeVar

from mindscore._util.errors import format_error

log = logging.getLogger("mindscore")


class Pace:
    """A queue of tasks that work one by one, a turn of the loop each.

    Prompts of a hundred thousand tokens take milliseconds to build. Tasks that all do so in the
    same turn of the loop would keep the host from its own work until the last is done.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def yield_to_loop(self) -> None:
        """Wait for the next turn of the loop that no other task has taken."""
        async with self._turn:
            # Twice: a timer that came due meanwhile is called after the first turn.
            await asyncio.sleep(0)
            await asyncio.sleep(0)


class Closable(Protocol):
    """An object that is closed once it is not needed any more."""

    async def aclose(self) -> None: ...


@asynccontextmanager
async def closed_at_end(closable: Closable, name: str) -> AsyncIterator[None]:
    """Close ``closable``, which is somebody else's, after the block; a failure of that is logged.

    What was done in the block is not lost with it.
    """
    try:
        yield
    finally:
        try:
            await closable.aclose()
        except Exception as error:
            log.warning("%s could not be closed: %s", name, format_error(error))


Item = TypeVar("Item")
Result = TypeVar("Result")


async def map_ordered(
    work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], limit: int
) -> AsyncGenerator[tuple[Item, asyncio.Task[Result | BaseException]], None]:
    """Yield each item, in order, with the task that works on it; ``limit`` of them run at once.

    A task's result is what ``work`` returned or raised. When the generator is closed, tasks that
    are not done are cancelled and waited for: close it (``contextlib.aclosing``).
    """

    async def attempt(item: Item) -> Result | BaseException:
        try:
            return await work(item)
        except KeyboardInterrupt:
            raise
        # Not only Exception: a SystemExit that leaves a task stops the host's event loop.
        except BaseException as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return error

    started: deque[tuple[Item, asyncio.Task[Result | BaseException]]] = deque()
    try:
        for item in items:
            started.append((item, asyncio.create_task(attempt(item))))
            if len(started) == limit:
                # It stays in the queue while its turn lasts: closing then cancels it too.
                yield started[0]
                started.popleft()
        while started:
            yield started[0]
            started.popleft()
    finally:
        for _, task in started:
            task.cancel()
        await asyncio.gather(*(task for _, task in started), return_exceptions=True)


async def gather_ordered(
    work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], limit: int
) -> list[Result]:
    """Return what ``work`` returns for each item, in order; ``limit`` of them run at once.

    Raises:
        BaseException: what it raises for the first item that fails; the rest is cancelled.
    """
    found = []
    async with aclosing(map_ordered(work, items, limit)) as worked:
        async for _, task in worked:
            result = await task
            if isinstance(result, BaseException):
                raise result
            found.append(result)
    return found


_M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Have all threads allocate from one arena, if the C library is glibc.

    Heaps of a thread's own are 64 MB, which a model's intermediate results of changing sizes keep
    outgrowing: measured, scoring in a thread takes a quarter longer. It holds for the process, so
    not to be called in a host's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
