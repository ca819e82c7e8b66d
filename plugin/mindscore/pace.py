"""Long work on the host's event loop, a piece at a time."""

from __future__ import annotations

import asyncio


class Pace:
    """Lets the loop turn before each piece of work, however many tasks have one ready.

    Prompts of a hundred thousand tokens take milliseconds to put together. Tasks that all do so at
    the same turn of the loop would keep the host from its own work for as long as all of them take.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def step(self) -> None:
        """Wait for the next turn of the loop that no other piece has taken."""
        async with self._turn:
            # Twice: a timer that came due during the last piece is called after the first turn.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
