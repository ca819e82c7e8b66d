"""Keep an event loop responsive while long work runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar


class Pace:
    """Lets the loop turn before each piece of work, however many tasks have one ready.

    Prompts of a hundred thousand tokens take milliseconds to put together. Tasks that all do so at
    the same turn of the loop would keep the host from its own work for as long as all of them take.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def yield_to_loop(self) -> None:
        """Wait for the next turn of the loop that no other piece has taken."""
        async with self._turn:
            # Twice: a timer that came due during the last piece is called after the first turn.
            await asyncio.sleep(0)
            await asyncio.sleep(0)


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
