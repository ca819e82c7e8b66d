"""Closing what plugins brought, for a limited time, whatever they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from mindhooks._complaints import complain
from mindhooks._tasks import being_cancelled

Close = Callable[[], Coroutine[Any, Any, None]]


class Closer:
    """Closes one thing after another; what does not end is left behind, and logged."""

    def __init__(self) -> None:
        # Asyncio itself holds tasks only weakly.
        self._left: set[asyncio.Task[None]] = set()

    async def close_all(self, closings: Sequence[tuple[str, Close]], limit_s: float) -> None:
        """Await each of ``closings``, named for the log, for at most ``limit_s`` altogether."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        for number, (what, close) in enumerate(closings):
            # A fair share of what is left: one that hangs must not cost the others their turn.
            share = (deadline - loop.time()) / (len(closings) - number)
            await self._close_within(what, close, share)

    async def _close_within(self, what: str, close: Close, limit_s: float) -> None:
        task = asyncio.create_task(close())
        await asyncio.wait({task}, timeout=limit_s)
        if not task.done():
            complain(what, TimeoutError(f"not done after {limit_s:.3g} s"))
            task.cancel()
            self._left.add(task)
            task.add_done_callback(self._left.discard)


async def close_one(what: str, closable: object) -> None:
    """Await the ``aclose`` of ``closable``, if it has one; what it raises is logged."""
    try:
        close = getattr(closable, "aclose", None)
        if close is not None:
            await close()
    except KeyboardInterrupt:
        raise
    # Not only Exception: a SystemExit that leaves a task stops the host's event loop.
    except BaseException as error:
        if not being_cancelled():
            complain(what, error)
