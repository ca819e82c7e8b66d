"""Keeping several requests under way while their results are taken in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def ahead(
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
