"""Scores beside the agent, in a thread that no agent waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mindscore.hosts.complaints import Complaints


class Worker:
    """A daemon thread, which starts when there is something to do.

    ``score(goes_on)`` scores what waits; ``idle_s()`` is after how many seconds without a turn it
    is called by itself, 0 for never. What either raises is said once.
    """

    def __init__(
        self,
        score: Callable[[Callable[[], bool]], None],
        idle_s: Callable[[], float],
        complaints: Complaints,
    ) -> None:
        self._score = score
        self._idle_s = idle_s
        self._complaints = complaints
        self._changed = threading.Condition()
        self._ended: float | None = None
        self._asked: list[threading.Event] = []
        self._thread: threading.Thread | None = None

    def agent_works(self) -> None:
        """The agent is not idle."""
        with self._changed:
            self._ended = None

    def turn_ended(self) -> None:
        """The agent has answered, and may be idle from now on."""
        with self._changed:
            self._ended = time.monotonic()
            self._wake()

    def ask(self) -> threading.Event:
        """Score now; the event is set when that has ended."""
        done = threading.Event()
        with self._changed:
            self._asked.append(done)
            self._wake()
        return done

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="mindscore in hermes", daemon=True
            )
            self._thread.start()
        self._changed.notify()

    def _work(self) -> None:
        idle_s = 0.0
        with self._complaints.guard("scoring when idle"):
            idle_s = self._idle_s()
        while True:
            asked = self._wait(idle_s)
            with self._complaints.guard("scoring"):
                self._score(self._is_idle if not asked else lambda: True)
            for done in asked:
                done.set()

    def _wait(self, idle_s: float) -> list[threading.Event]:
        """Until somebody asks, or the agent has been idle for long enough: who asked."""
        with self._changed:
            while not self._asked:
                left = None
                if self._ended is not None and idle_s:
                    left = self._ended + idle_s - time.monotonic()
                    if left <= 0:
                        break
                self._changed.wait(left)
            asked, self._asked = self._asked, []
            if not asked:
                # Not again before another turn; while it stays so, the agent is idle.
                self._ended = -idle_s
            return asked

    def _is_idle(self) -> bool:
        return self._ended is not None
