"""Hermes' hooks, which put its turns into the queue, and the thread that scores them when idle."""

from __future__ import annotations

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mindscore._util.clock import LONGEST_STEP_S, Clock
from mindscore._util.errors import ErrorLog

if TYPE_CHECKING:
    from mindscore.integrations.hermes.queue import TurnQueue

REQUEST_FIELDS = ("model", "provider", "base_url", "api_mode", "platform")
"""Fields of a request that are kept beside its messages."""

UNFINISHED_SESSIONS = 64
"""Sessions whose request is kept until its turn ends: interrupted turns never do."""


EXIT_TIMEOUT_S = 15.0
"""A process that ends waits so long for the thread that scores."""


class Capture:
    """The hooks ``pre_api_request`` and ``post_llm_call``; neither raises, nor changes anything.

    A turn's last request is the one that produced its reply. ``began`` is called when the agent
    begins to work, ``ended`` when it has replied.
    """

    def __init__(
        self,
        queue: Callable[[], TurnQueue],
        log: ErrorLog,
        began: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._log = log
        self._began = began
        self._ended = ended
        self._requests: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def pre_api_request(self, **given: Any) -> None:
        """Keep the request, until a later one of its session."""
        with self._log.catch("remembering a request failed"):
            self._began()
            session = _text(given.get("session_id"))
            about = {name: _text(given.get(name)) for name in REQUEST_FIELDS}
            self._requests[session] = {
                "turn_id": given.get("turn_id"),
                "messages": given.get("request_messages"),
                "about": about,
            }
            self._requests.move_to_end(session)
            while len(self._requests) > UNFINISHED_SESSIONS:
                self._requests.popitem(last=False)

    def post_llm_call(self, **given: Any) -> None:
        """Queue the turn: it is in the file when this returns."""
        with self._log.catch("keeping a turn failed"):
            session = _text(given.get("session_id"))
            request = self._requests.pop(session, None)
            messages = request["messages"] if request else None
            # Without a request of this very turn, it is unknown what the reply answers.
            if request is None or request["turn_id"] != given.get("turn_id") or not messages:
                return
            text = _reply(given)
            if not text:
                return
            reply = {"role": "assistant", "content": text}
            dropped = self._queue().put(session, [*messages, reply], request["about"])
            if dropped:
                self._log.warn("too many turns wait to be scored: the oldest are dropped")
            self._ended()


def _reply(given: Mapping[str, Any]) -> str:
    """Return the reply as the conversation keeps it; what Hermes shows may have additions."""
    history = given.get("conversation_history")
    last = history[-1] if isinstance(history, list) and history else None
    if isinstance(last, Mapping) and last.get("role") == "assistant":
        content = last.get("content")
        if isinstance(content, str) and content:
            return content
    return _text(given.get("assistant_response"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


class Worker:
    """A daemon thread beside the agent, which starts when there is something to do.

    ``score(goes_on)`` scores what waits, and returns the seconds after which it is to be called
    again though no turn comes, or ``None``. It is called ``idle_s()`` seconds after a turn if no
    other comes, never if that is 0, and when somebody asked for it: then ``is_asked`` is true
    meanwhile. ``prepare()`` is called when the agent begins to work, and when it has replied. Their
    exceptions are logged. A time in which the machine sleeps counts.
    """

    def __init__(
        self,
        score: Callable[[Callable[[], bool]], float | None],
        idle_s: Callable[[], float],
        prepare: Callable[[], None],
        log: ErrorLog,
        clock: Clock | None = None,
    ) -> None:
        self.is_asked = False
        self._clock = clock or Clock()
        self._score = score
        self._idle_s = idle_s
        self._prepare = prepare
        self._log = log
        self._changed = threading.Condition()
        self._ended: float | None = None
        self._again: float | None = None
        self._works = False
        self._is_unprepared = False
        self._asked: list[threading.Event] = []
        self._thread: threading.Thread | None = None
        self._ending = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        # A forked process has no thread of its parent's, whose lock may be held for good.
        self._changed = threading.Condition()
        self._thread, self._asked = None, []

    def end(self) -> None:
        """End the thread, after what it is at, for at most ``EXIT_TIMEOUT_S``."""
        thread = self._thread
        if thread is None:
            return
        with self._changed:
            self._ending = self._works = True
            self._changed.notify()
        thread.join(EXIT_TIMEOUT_S)

    def agent_works(self) -> None:
        """Note that the agent is not idle."""
        with self._changed:
            self._works, self._ended = True, None
            self._is_unprepared = True
            self._wake()

    def turn_ended(self) -> None:
        """Note that the agent has replied, and may be idle from now on."""
        with self._changed:
            self._works, self._ended = False, self._clock.now()
            self._is_unprepared = True
            self._wake()

    def ask(self) -> threading.Event:
        """Score now; return an event that is set when that has ended."""
        done = threading.Event()
        with self._changed:
            self._asked.append(done)
            self._wake()
        return done

    def _wake(self) -> None:
        if self._thread is None and not self._ending:
            # Otherwise the process ends under a model that computes.
            atexit.register(self.end)
            self._thread = threading.Thread(
                target=self._work, name="mindscore in hermes", daemon=True
            )
            self._thread.start()
        self._changed.notify()

    def _work(self) -> None:
        idle_s: float | None = None
        while not self._ending:
            asked, is_due = self._wait(idle_s or 0.0)
            if asked or is_due:
                with self._log.catch("scoring failed"):
                    self.is_asked = bool(asked)
                    again_s = self._score(self._goes_on if asked else self._is_idle)
                    self._again = None if again_s is None else self._clock.now() + again_s
                for done in asked:
                    done.set()
                continue
            with self._log.catch("preparing the queue failed"):
                self._prepare()
            if idle_s is None:
                idle_s = 0.0
                with self._log.catch("scoring when idle failed"):
                    idle_s = self._idle_s()

    def _wait(self, idle_s: float) -> tuple[list[threading.Event], bool]:
        """Wait for something to do; return the events of requests, and if scoring is due anyway."""
        with self._changed:
            while not (self._asked or self._is_unprepared or self._ending):
                left = self._left_s(idle_s)
                if left is not None and left <= 0:
                    # Not again before another turn, unless something waits.
                    self._ended = self._again = None
                    return [], True
                self._changed.wait(None if left is None else min(left, LONGEST_STEP_S))
            asked, self._asked = self._asked, []
            self._is_unprepared = self._is_unprepared and bool(asked)
            return asked, False

    def _left_s(self, idle_s: float) -> float | None:
        """Return the seconds until scoring is due; ``None``: it is not."""
        due = []
        if self._ended is not None and idle_s:
            due.append(self._ended + idle_s)
        if self._again is not None and idle_s and not self._works:
            due.append(self._again)
        return min(due) - self._clock.now() if due else None

    def _goes_on(self) -> bool:
        return not self._ending

    def _is_idle(self) -> bool:
        return not self._works
