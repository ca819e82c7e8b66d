"""Conversations that wait to be scored, and the servers that take them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mindhooks import in_thread
from mindscore._util.errors import TranscriptError
from mindscore.archive.survey import Found
from mindscore.conversation.conversation import Transcript

LOOK_AHEAD = 2
"""Conversations that wait in memory, for each server."""

FAILURES_OF_A_SERVER = 2
"""Conversations in a row that a server gives up on before it counts as down."""

NOT_REACHED = "not reached: no server is up"

MOST_SERVERS_TRIED = 2
"""Servers that give up on a conversation before it counts as failed."""


@dataclass(slots=True)
class Job:
    """One conversation to score; ``prefers``: the conditions of what was measured of it."""

    found: Found
    transcript: Transcript
    prefers: str = ""
    tried: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Taker:
    """A server that takes jobs; ``conditions`` tell its model and the settings."""

    place: str
    conditions: str
    is_up: bool = True
    failures: int = 0
    """Conversations in a row that it gave up on."""

    def end(self, *, gave_up: bool) -> bool:
        """Note how a conversation has ended; return whether the server counts as down now."""
        self.failures = self.failures + 1 if gave_up else 0
        return self.failures >= FAILURES_OF_A_SERVER


class Jobs:
    """Hands conversations out, each to one server, and again to another where that gives up.

    ``transcripts`` are read as they are needed; what could be read no more goes to ``failed``.
    ``begun`` are the conditions of conversations that were begun, by their ids.
    """

    def __init__(
        self,
        transcripts: Iterator[tuple[Found, Transcript | TranscriptError]],
        takers: list[Taker],
        begun: Mapping[str, str],
    ) -> None:
        self.failed: list[tuple[Found, str]] = []
        self.taken = 0
        """Conversations that were taken, and not given to another since."""
        self._transcripts = transcripts
        self._takers = takers
        self._begun = begun
        self._waiting: deque[Job] = deque()
        self._out = 0
        self._is_read = False
        self._changed = asyncio.Condition()

    async def take(self, taker: Taker) -> Job | None:
        """Return the next conversation for ``taker``; ``None``: there will be none.

        It waits while others may yet give one up.
        """
        async with self._changed:
            while taker.is_up:
                await self._read_ahead()
                job = next((it for it in self._waiting if self._suits(it, taker)), None)
                if job is not None:
                    self._waiting.remove(job)
                    self._out += 1
                    self.taken += 1
                    return job
                if self._is_read and not self._waiting and not self._out:
                    self._changed.notify_all()
                    return None
                await self._changed.wait()
        return None

    async def done(self) -> None:
        """Note that a conversation that was taken has ended."""
        await self._put(None)

    async def give_up(self, job: Job, taker: Taker) -> bool:
        """Give ``job`` to another server, and return whether there is one that may take it."""
        job.tried.add(taker.place)
        others = [it for it in self._takers if it.is_up and it.place not in job.tried]
        goes_on = bool(others) and len(job.tried) < MOST_SERVERS_TRIED
        await self._put(job if goes_on else None)
        return goes_on

    async def leave(self, taker: Taker) -> None:
        """Note that ``taker`` is down, and takes no more."""
        async with self._changed:
            taker.is_up = False
            left = {it.place for it in self._takers if it.is_up}
            for job in [it for it in self._waiting if left and it.tried >= left]:
                self._waiting.remove(job)
                self.failed.append((job.found, "no other server is up"))
            self._changed.notify_all()

    async def _put(self, job: Job | None) -> None:
        async with self._changed:
            self._out -= 1
            if job is not None:
                self.taken -= 1
                self._waiting.appendleft(job)
            self._changed.notify_all()

    def _suits(self, job: Job, taker: Taker) -> bool:
        if taker.place in job.tried:
            return False
        others = [it for it in self._takers if it.is_up and it is not taker]
        # One that another has begun waits for that one: its rows count for the same model only.
        return job.prefers in ("", taker.conditions) or all(
            it.conditions != job.prefers for it in others
        )

    async def _read_ahead(self) -> None:
        while not self._is_read and len(self._waiting) < LOOK_AHEAD * len(self._takers):
            read = await in_thread(next, self._transcripts, None)
            if read is None:
                self._is_read = True
            else:
                found, transcript = read
                if isinstance(transcript, TranscriptError):
                    self.failed.append((found, str(transcript)))
                else:
                    self._waiting.append(Job(found, transcript, self._begun.get(found.id, "")))
