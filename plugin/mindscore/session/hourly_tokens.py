"""Commands that run by themselves, within the tokens that an hour has for them."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from mindhooks import FinetuneStats, MindCommand, MindhooksError, Run
from mindscore._util.clock import Clock
from mindscore._util.errors import ConfigError, StoreError, format_error
from mindscore._util.text import count_of
from mindscore.config.settings import MemoryScoringOptions, Settings, parse_settings, parse_table
from mindscore.flows.run import ReservedTokens
from mindscore.measure.prompts import whole_prompt
from mindscore.session.plan import count_calls
from mindscore.session.result import Result
from mindscore.session.session import Session
from mindscore.store import Grant, Reservation, Reservations, Sent
from mindscore.store.history import HOUR_S
from mindscore.store.namespace import DAY_S

SLOT_S = 36.0
"""Seconds whose tokens are counted together: until an hour after the last of them."""

OWN_S = 3 * HOUR_S
"""Seconds for which a run is known to be this process's own."""

OTHERS_S = 300.0
"""Seconds after which tokens may be free that runs of other processes have sent."""

RENEWED_S, LAPSE_S = 60.0, 180.0
"""Seconds after which a run renews what it has reserved, and after which it must have done so."""

FLOW = "memory-scoring"


@dataclass(slots=True)
class _Slot:
    """The tokens sent within ``SLOT_S``."""

    first: float
    last: float
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Watched:
    """A reservation as it was first seen ``since``, by a clock that stands still in sleep."""

    renewed_at: float
    since: float


class HourlyTokens:
    """The tokens that this process has sent by itself within the last 60 minutes.

    Times are a ``Clock``'s. Every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: deque[_Slot] = deque()
        self._own: dict[float, float] = {}
        self._reserved: dict[str, int] = {}
        self._watched: dict[str, _Watched] = {}

    def reserve(
        self,
        id_: str,
        limit: int,
        now: float,
        recorded: Iterable[Sent],
        reserved: Iterable[Reservation],
        *,
        most: int | None = None,
        keep: int = 0,
    ) -> Grant:
        """Take what is left of ``limit`` under the name ``id_``, ``most`` tokens at most.

        ``recorded`` are the runs of the last hour that the store has: those of this process that
        were settled here are counted by its own clock. ``reserved`` are those that the store has
        under way. ``keep`` are kept for something else.
        """
        with self._lock:
            while self._slots and now - self._slots[0].last >= HOUR_S:
                self._slots.popleft()
            self._reserved.pop(id_, None)
            others = {it.id: it for it in reserved if it.id not in self._reserved}
            lapsed = self._lapsed(others, time.time(), time.monotonic())
            sent = sum(it.tokens for it in self._slots) + sum(self._reserved.values())
            sent += sum(tokens for began, tokens in recorded if began not in self._own)
            sent += sum(it.tokens for it in others.values()) - sum(it.tokens for it in lapsed)
            left = limit - keep - sent
            granted = max(0, left if most is None else min(most, left))
            self._reserved[id_] = granted
            return Grant(granted, lapsed)

    def _lapsed(
        self, others: Mapping[str, Reservation], now: float, awake: float
    ) -> list[Reservation]:
        """Return the reservations of processes that have died; ``now`` is since the epoch.

        What they may have sent counts for an hour. A process that goes on after a sleep renews its
        own within ``LAPSE_S``; and where the clock was set back, nobody knows how old one is. After
        a day none is waited for: a process that looks on may live for less than ``LAPSE_S``.
        """
        before, self._watched = self._watched, {}
        for id_, it in others.items():
            seen = before.get(id_)
            is_same = seen is not None and seen.renewed_at == it.renewed_at
            self._watched[id_] = seen if seen and is_same else _Watched(it.renewed_at, awake)
        return [
            it
            for id_, it in others.items()
            if now - it.renewed_at >= DAY_S
            or awake - self._watched[id_].since
            >= (LAPSE_S if now - it.renewed_at >= HOUR_S else HOUR_S)
        ]

    def narrow(self, id_: str, tokens: int) -> None:
        """Give back all that was taken as ``id_`` but ``tokens``."""
        with self._lock:
            self._reserved[id_] = min(tokens, self._reserved.get(id_, 0))

    def settle(self, id_: str, now: float, sent: int, runs: Iterable[Run]) -> None:
        """Give back what was taken as ``id_``, and count what was ``sent`` by ``runs``."""
        with self._lock:
            self._reserved.pop(id_, None)
            self._own = {began: at for began, at in self._own.items() if now - at < OWN_S}
            self._own |= dict.fromkeys((it.started_at for it in runs), now)
            if not sent:
                return
            if not self._slots or now - self._slots[-1].first > SLOT_S:
                self._slots.append(_Slot(now, now))
            self._slots[-1].last = now
            self._slots[-1].tokens += sent

    def free_in(self, tokens: int, limit: int, now: float) -> float:
        """Return the seconds after which ``tokens`` of ``limit`` may be left."""
        with self._lock:
            sent = sum(it.tokens for it in self._slots)
            for slot in self._slots:
                if limit - sent < tokens <= limit - sent + slot.tokens:
                    return slot.last + HOUR_S - now
                sent -= slot.tokens
            return OTHERS_S


@lru_cache(maxsize=64)
def hourly_tokens(url: str, namespace: str) -> HourlyTokens:
    """Return the tokens that this process has sent for one namespace of a store."""
    del url, namespace
    return HourlyTokens()


@dataclass(frozen=True, slots=True)
class BudgetedRun:
    """A command that was run as far as there were tokens for it.

    Attributes:
        result: its result; ``None``: it was not run.
        waits: a line on what waits for tokens; ``None``: nothing does.
        retry_s: the seconds after which there may be tokens for that; ``None``: nothing waits, or
            waiting does not help, as an hour has fewer tokens than it needs.
    """

    result: Result | None
    waits: str | None = None
    retry_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """A ``BudgetedRun``, and the tokens that are to be free before it is tried again."""

    result: Result | None
    waits: str | None = None
    wanted: int | None = None


class BudgetedRuns:
    """Runs commands over a session's conversation within ``live.tokens_per_hour``."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._keep = 0

    @property
    def keeps_tokens(self) -> bool:
        """True if a search for candidates waits for tokens: no other command gets those."""
        return self._keep > 0

    async def run(self, command: str, *, resume: bool = False) -> BudgetedRun:
        """Run ``command``, in part if there are tokens for a part.

        ``resume``: rows of the matrix that the store has are not measured again.

        Raises:
            ConfigError: the settings are wrong.
        """
        session = self._session
        settings = parse_settings(session.registry.settings)
        limit = settings.live.tokens_per_hour
        if not limit:
            return BudgetedRun(await self._attempt(command))
        needed = None
        if command == MindCommand.SCORE_FINETUNE:
            try:
                needed = await self._needed(settings)
            except ConfigError:
                raise
            except MindhooksError as error:
                session.forget()
                keys = tuple(session.transcript.keys())
                return BudgetedRun(await session.failed(command, keys, format_error(error)))
        if needed is not None and needed > limit:
            self._keep = 0
            return BudgetedRun(None, _too_large("the search for candidates needs", limit))
        spent = hourly_tokens(settings.store.url, settings.store.namespace)
        keep = self._keep if needed is None and settings.live.candidates else 0
        session.forget()
        async with self._reserved(spent, settings, most=needed, keep=keep) as granted:
            if needed is None:
                part = await self._score(command, settings, granted, resume=resume)
            else:
                part = await self._search(command, needed, granted, limit)
        retry_s = None
        if part.wanted is not None:
            retry_s = spent.free_in(part.wanted, limit, self._clock.now())
        return BudgetedRun(part.result, part.waits, retry_s)

    @asynccontextmanager
    async def _reserved(
        self, spent: HourlyTokens, settings: Settings, *, most: int | None, keep: int
    ) -> AsyncIterator[int]:
        """Reserve tokens of the hour for the block, and count at its end what it has sent."""
        reservations, id_ = Reservations(settings.store), uuid.uuid4().hex

        def decide(sent: Iterable[Sent], others: Iterable[Reservation]) -> Grant:
            limit, now = settings.live.tokens_per_hour, self._clock.now()
            return spent.reserve(id_, limit, now, sent, others, most=most, keep=keep)

        renewing: asyncio.Task[None] | None = None
        # Cancelled while the store is asked, nobody knows.
        granted: int | None = None
        try:
            try:
                granted = await reservations.reserve(id_, decide)
            except StoreError:
                # What this process has sent counts in any case.
                granted = decide((), ()).tokens
            if granted:

                async def narrow(tokens: int) -> None:
                    spent.narrow(id_, tokens)
                    with suppress(StoreError):
                        await reservations.narrow(id_, tokens)

                self._session.registry.stash[ReservedTokens] = ReservedTokens(narrow)
                renewing = asyncio.create_task(_renew(reservations, id_), name="live: reserved")
            yield granted
        finally:
            try:
                # Whoever cancels this ends no run: it goes on, and sends what it has reserved.
                await self._session.registry.wait_idle()
            finally:
                self._session.registry.stash.pop(ReservedTokens, None)
                ended = [run for _, run in self._session.ended]
                spent.settle(id_, self._clock.now(), self._session.sent_tokens, ended)
                if renewing is not None:
                    renewing.cancel()
                if granted != 0:
                    with suppress(StoreError):
                        await reservations.release(id_)

    async def _attempt(self, command: str) -> Result:
        return await self._session.attempt(command, tuple(self._session.transcript.keys()))

    async def _search(self, command: str, needed: int, granted: int, limit: int) -> _Part:
        if granted < needed:
            self._keep = needed
            waits = f"the search for candidates waits for {needed:,} tokens ({_setting(limit)})"
            return _Part(None, waits, needed)
        self._keep = 0
        return _Part(await self._attempt(command))

    async def _score(
        self, command: str, settings: Settings, granted: int, *, resume: bool
    ) -> _Part:
        """Score the memories that fit into ``granted`` tokens: ``score`` takes the oldest first."""
        limit = settings.live.tokens_per_hour
        registry = self._session.registry
        if not granted and not registry.plugin_manager.has_plugin(FLOW):
            # Another flow in its place may know no limit of its own.
            return _Part(None, f"memories wait for tokens ({_setting(limit)})", limit)
        table = settings.plugins.settings.get(FLOW, {})
        own = parse_table(table, MemoryScoringOptions, f"plugins.settings.{FLOW}")
        # With none left it finds out what is due: in a limit of 1 no prompt fits.
        most = max(1, min(granted, own.max_tokens or granted))
        registry.stash[MemoryScoringOptions] = msgspec.structs.replace(
            own, max_tokens=most, resume=own.resume or resume
        )
        try:
            result = await self._attempt(command)
        finally:
            registry.stash.pop(MemoryScoringOptions, None)
        left_out = sum(it.status == "left-out" for it in result.outcomes.values())
        if not left_out or 0 < own.max_tokens <= granted:
            return _Part(result)
        has_scored = result.stats is not None and result.stats.calls > 0
        if not has_scored and granted == limit:
            return _Part(result, _too_large("some memories need", limit))
        waits = f"{count_of(left_out, 'memory', 'memories')} waiting for tokens ({_setting(limit)})"
        # If not even one fitted, it may take all that an hour has.
        return _Part(result, waits, limit // 2 if has_scored else limit)

    async def _needed(self, settings: Settings) -> int:
        """Return the most tokens that the search for candidates may send and generate.

        Raises:
            MindhooksError: they cannot be counted, and so it cannot be run.
        """
        session = self._session
        tables, command = session.registry.settings, MindCommand.SCORE_FINETUNE
        context = await session.context()
        talk, scorer = Session(session.transcript, context=context), session.registry.scorer()
        stats = (await count_calls(talk, tables, command, await scorer, {})).stats
        assert isinstance(stats, FinetuneStats)  # noqa: S101 - that command's are
        if stats.error is not None:
            raise MindhooksError(stats.error)
        longest = len(await whole_prompt(context)) + settings.finetune.max_alternate_tokens
        alternates = stats.responses_considered if settings.finetune.generate_alternates else 0
        return stats.prompt_tokens + alternates * longest


async def _renew(reservations: Reservations, id_: str) -> None:
    """Renew a reservation until cancelled."""
    while True:
        await asyncio.sleep(RENEWED_S)
        with suppress(StoreError):
            await reservations.renew(id_)


def _setting(limit: int) -> str:
    return f"live.tokens_per_hour = {limit}"


def _too_large(what: str, limit: int) -> str:
    return f"{what} more tokens than {_setting(limit)}: raise it, or score by hand"
