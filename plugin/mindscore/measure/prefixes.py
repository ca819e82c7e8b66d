"""Prefixes that prompts share: how long they are, and which prompt waits for which."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

_ID_BYTES = 8

MOST_BYTES = 2**26
"""Size of the prompts that are remembered; then they are forgotten, all at once."""


def prefix_key(prompt: Sequence[int]) -> bytes:
    """Return the ids as bytes, as which prompts are compared here.

    For a hundred thousand it takes a millisecond, and to compare them far less.
    """
    return array("q", prompt).tobytes()


class PrefixIndex:
    """Keys of prompts, in lexical order: the one that shares most with another stands next to it.

    ``size`` is the number of bytes that they take.
    """

    def __init__(self) -> None:
        self._prompts: list[bytes] = []
        self.size = 0

    def add(self, key: bytes) -> None:
        """Add a prompt, once more if it is there already."""
        self._prompts.insert(bisect_left(self._prompts, key), key)
        self.size += len(key)

    def longest(self, key: bytes, *, is_added: bool = False) -> int:
        """Return the number of ids that a prompt shares with the one that shares most.

        ``is_added``: it is one of them itself, and is compared with the others.
        """
        at = bisect_left(self._prompts, key)
        # Next to it stands its double, if it was added twice.
        end = min(at + 1, bisect_right(self._prompts, key)) if is_added else at
        neighbours = (*self._prompts[max(0, at - 1) : at], *self._prompts[end : end + 1])
        return max((_common(it, key) for it in neighbours), default=0)


def _common(one: bytes, other: bytes) -> int:
    """Return the number of ids with which both begin, by halving: comparing bytes is fast."""
    low, high = 0, min(len(one), len(other)) // _ID_BYTES
    while low < high:
        middle = (low + high + 1) // 2
        part = slice(low * _ID_BYTES, middle * _ID_BYTES)
        if one[part] == other[part]:
            low = middle
        else:
            high = middle - 1
    return low


class PrefixQueue:
    """Lets a prompt wait while one under way shares more with it than any that is answered.

    What the server caches of the one is then not computed for the other. ``block`` is the number of
    tokens that the server caches together: it may be set at any time.
    """

    def __init__(self, block: int) -> None:
        self.block = block
        self._answered = PrefixIndex()
        self._under_way: dict[asyncio.Future[None], bytes] = {}

    @asynccontextmanager
    async def turn(self, key: bytes, limit: int) -> AsyncIterator[None]:
        """Wait for the turn of a prompt, of which at most ``limit`` tokens may be cached.

        It counts as answered unless the block raises. Those who wait wait for one that does not,
        so that all get their turn, however it ends.
        """
        while (ahead := self._ahead(key, limit)) is not None:
            await asyncio.wait([ahead])
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way[mine] = key
        try:
            yield
            if self._answered.size > MOST_BYTES:
                self.forget()
            self._answered.add(key)
        finally:
            del self._under_way[mine]
            mine.set_result(None)

    def forget(self) -> None:
        """Count no prompt as answered: the server has nothing of them."""
        self._answered = PrefixIndex()

    def _ahead(self, key: bytes, limit: int) -> asyncio.Future[None] | None:
        """Return what to wait for, if anything."""
        shared = {future: _common(it, key) for future, it in self._under_way.items()}
        best = max(shared, key=shared.__getitem__, default=None)
        if best is None:
            return None
        useful = min(shared[best], limit) // self.block
        return best if useful > min(self._answered.longest(key), limit) // self.block else None
