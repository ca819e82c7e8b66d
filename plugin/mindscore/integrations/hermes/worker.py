"""Scores beside the agent, in a thread that no agent waits for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mindscore._util.errors import format_error


class Complaints:
    """Says each line once, through one logger."""

    def __init__(self, logger: str) -> None:
        self._logger = logging.getLogger(logger)
        self._said: set[str] = set()

    def say(self, line: str) -> None:
        """Log a warning, unless it was said before."""
        if line not in self._said:
            self._said.add(line)
            self._logger.warning("%s", line)

    @contextmanager
    def guard(self, doing: str) -> Iterator[None]:
        """Around what may fail: the failure is said, and goes no further."""
        try:
            yield
        except Exception as error:
            self.say(f"{doing} failed: {format_error(error)}")


class Worker:
    """A daemon thread, which starts when there is something to do.

    ``score(goes_on)`` scores what waits; ``idle_s()`` is after how many seconds without a turn it
    is called by itself, 0 for never. ``prepare()`` is called when the agent begins to work, and
    when it has answered. What they raise is said once.
    """

    def __init__(
        self,
        score: Callable[[Callable[[], bool]], None],
        idle_s: Callable[[], float],
        prepare: Callable[[], None],
        complaints: Complaints,
    ) -> None:
        self._score = score
        self._idle_s = idle_s
        self._prepare = prepare
        self._complaints = complaints
        self._changed = threading.Condition()
        self._ended: float | None = None
        self._works = False
        self._is_unprepared = False
        self._asked: list[threading.Event] = []
        self._thread: threading.Thread | None = None

    def agent_works(self) -> None:
        """The agent is not idle."""
        with self._changed:
            self._works, self._ended = True, None
            self._is_unprepared = True
            self._wake()

    def turn_ended(self) -> None:
        """The agent has answered, and may be idle from now on."""
        with self._changed:
            self._works, self._ended = False, time.monotonic()
            self._is_unprepared = True
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
        idle_s: float | None = None
        while True:
            asked, is_due = self._wait(idle_s or 0.0)
            if asked or is_due:
                with self._complaints.guard("scoring"):
                    self._score((lambda: True) if asked else self._is_idle)
                for done in asked:
                    done.set()
                continue
            with self._complaints.guard("preparing the queue"):
                self._prepare()
            if idle_s is None:
                idle_s = 0.0
                with self._complaints.guard("scoring when idle"):
                    idle_s = self._idle_s()

    def _wait(self, idle_s: float) -> tuple[list[threading.Event], bool]:
        """Until there is something to do: who asks for scores, and whether they are due anyway."""
        with self._changed:
            while not (self._asked or self._is_unprepared):
                left = None
                if self._ended is not None and idle_s:
                    left = self._ended + idle_s - time.monotonic()
                    if left <= 0:
                        # Not again before another turn.
                        self._ended = None
                        return [], True
                self._changed.wait(left)
            asked, self._asked = self._asked, []
            self._is_unprepared = self._is_unprepared and bool(asked)
            return asked, False

    def _is_idle(self) -> bool:
        return not self._works
