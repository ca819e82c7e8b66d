"""A clock that a sleeping machine does not stop, and that nobody sets."""

from __future__ import annotations

import asyncio
import time

LONGEST_STEP_S = 60.0
"""Seconds that a timer runs at most: timers stand still while the machine sleeps."""

# Linux stops time.monotonic() while it sleeps, and macOS does. CLOCK_BOOTTIME is Linux's that goes
# on, CLOCK_MONOTONIC macOS's; Windows has neither, and its time.monotonic() goes on.
_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


class Clock:
    """The time since some moment, in seconds: it never goes back, and goes on in sleep."""

    def now(self) -> float:
        """Return the seconds since that moment."""
        return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)

    async def sleep(self, seconds: float) -> None:
        """Wait for so long; a machine that slept meanwhile is noticed within a minute."""
        until, left = self.now() + seconds, seconds
        while left > 0:
            await asyncio.sleep(min(left, LONGEST_STEP_S))
            left = until - self.now()
