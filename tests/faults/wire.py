"""Faults on the wire: of a server that answers a scorer, and of clients that ask ``serve``."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any
from unittest import mock

from mindhooks import (
    Context,
    MindCommand,
    Node,
    Registry,
    Role,
    ScorerError,
    ScorerUnavailable,
    WirePrompt,
)
from mindhooks.testing import RecordingListener, StubMind
from mindscore.config.settings import ServerSettings
from mindscore.measure.retry import with_retries
from mindscore.scorers.remote.openai import OpenAIScorer
from mindscore.scorers.remote.score import ScoreScorer
from mindscore.scorers.remote.sglang import SGLangScorer
from mindscore.scorers.remote.vllm import VLLMScorer

from .attack import Attack, Finding
from .server import Exchange, FaultServer, good
from .slow_clients import slow_clients
from .wire_faults import ANSWERED, FAILS, KEY, LASTING, RETRIED, Fault, every, reset, says

SCORERS = (ScoreScorer, VLLMScorer, SGLangScorer, OpenAIScorer)
PROMPT = WirePrompt((5, 6, 5, 5, 9, 5, 6), (), ((1, 3), (4, 6)), ("a", "b"))
TIMEOUT_S, DEADLINE_S = 0.7, 3.0
LATE_S = 5.0
"""What a busy machine may add to the deadline."""

LONG_S = 60.0
"""A deadline for what takes several attempts."""

AT_ONCE = 24
PATIENCE_S = 20
ENVIRONMENT = "MINDSCORE_API_KEY"


def every_fault(trials: int) -> Finding:
    """Each fault before each scorer, for good and before a right answer; then at random."""
    with _everything_logged() as logged:
        run = asyncio.run(_Run(trials).all(), debug=True)
    failures = run.failures
    if KEY in logged():
        failures.append(f"the key is logged: {_around(logged())}")
    return Finding(
        "a server's faults are errors that say so, in time, or pass",
        "each fault of connections, statuses, bodies and shapes before each scorer",
        run.trials,
        failures,
        f"{run.faults} faults, {len(SCORERS)} scorers; no call took more than "
        f"{run.latest:.0%} of its deadline",
    )


class _Run:
    """One run over all faults, and ``rounds`` times as many of faults at random."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.trials = 0
        self.faults = 0
        self.latest = 0.0
        self.failures: list[str] = []
        self._exact: dict[type, Any] = {}

    async def all(self) -> _Run:
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        before = asyncio.all_tasks()
        with mock.patch.dict("os.environ", {ENVIRONMENT: KEY}), FaultServer(good) as elsewhere:
            faults = every(elsewhere.url)
            self.faults = len(faults)
            for scorer in SCORERS:
                self._exact[scorer] = await _honest(scorer)
            pairs = [(fault, scorer) for fault in faults for scorer in SCORERS]
            await _some_at_once([self._lasting(*pair) for pair in pairs])
            await _some_at_once([self._refused(scorer) for scorer in SCORERS])
            passing = [fault for fault in faults if fault.outcome == RETRIED]
            pausing = [fault for fault in passing if "retry" in fault.name.lower()]
            short = [fault for fault in passing if fault not in pausing]
            rng = random.Random(4)
            await _some_at_once(
                [self._passing([fault], rng.choice(SCORERS), DEADLINE_S) for fault in pausing]
                + [
                    self._passing(rng.choices(short, k=rng.randint(1, 3)), scorer, LONG_S)
                    for scorer in rng.choices(SCORERS, k=self.rounds)
                ]
            )
            if elsewhere.requests or elsewhere.open:
                self.failures.append("a redirect was followed")
        gc.collect()
        await asyncio.sleep(0)
        if left := asyncio.all_tasks() - before:
            self.failures.append(f"tasks are left: {left}")
        return self

    async def _lasting(self, fault: Fault, scorer: Any) -> None:
        """A server that has one fault, for good."""
        asked = 1 if fault.outcome in (LASTING, ANSWERED) else 2
        found, requests = await self._lasts(fault, scorer, TIMEOUT_S)
        if fault.outcome != FAILS and requests != asked:
            # A machine that stalls makes a time-out of any answer: not of this patience.
            found, requests = await self._lasts(fault, scorer, 10 * TIMEOUT_S)
            if requests != asked:
                self._failed(scorer, fault.name, f"asked {requests} times, not {asked}")
        self._judge(scorer, fault.name, fault.outcome, found)

    async def _lasts(self, fault: Fault, scorer: Any, timeout_s: float) -> tuple[Any, int]:
        """What a scorer makes of the fault, and how often it asked."""
        with FaultServer(fault.reply) as server:
            name = f"{scorer.__name__}: {fault.name}"
            deadline_s = timeout_s * DEADLINE_S / TIMEOUT_S
            found = await self._ask(name, scorer, server, 2, deadline_s, timeout_s)
            return found, server.requests

    async def _refused(self, scorer: Any) -> None:
        """Nobody listens."""
        with FaultServer(good) as server, socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            server.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            found = await self._ask(f"{scorer.__name__}: refused", scorer, server, 2)
        self._judge(scorer, "refused", RETRIED, found)

    async def _passing(self, faults: Sequence[Fault], scorer: Any, deadline_s: float) -> None:
        """A server that answers after some faults."""
        coming = iter(faults)

        async def reply(it: Exchange) -> None:
            fault = next(coming, None)
            await (fault.reply if fault else good)(it)

        name = ", ".join(fault.name for fault in faults)
        with FaultServer(reply) as server:
            found = await self._ask(name, scorer, server, 12, deadline_s)
        self._judge(scorer, name, ANSWERED, found)

    async def _ask(
        self,
        name: str,
        scorer: Any,
        server: FaultServer,
        attempts: int,
        deadline_s: float = DEADLINE_S,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """What a scorer makes of the server: its answer, or what it raises."""
        self.trials += 1
        limits = {"deadline_s": deadline_s, "timeout_s": timeout_s}
        table = _table(server.url, max_attempts=attempts, **limits)
        began = time.monotonic()
        async with aclosing(scorer(table)) as it:
            try:
                found: Any = await with_retries(lambda: it.score([PROMPT]), ServerSettings(**table))
            except BaseException as error:
                found = error
                self._search(name, error)
            took_s = time.monotonic() - began
        self.latest = max(self.latest, took_s / deadline_s)
        if took_s > deadline_s + LATE_S:
            self.failures.append(f"{name}: took {took_s:.1f} s")
        if not await _all_closed(server):
            self.failures.append(f"{name}: {server.open} connections are left")
        return found

    def _judge(self, scorer: Any, name: str, outcome: str, found: Any) -> None:
        if outcome == ANSWERED:
            fits = found == self._exact[scorer]
        elif outcome == RETRIED:
            fits = isinstance(found, ScorerUnavailable)
        else:
            is_retriable = isinstance(found, ScorerUnavailable)
            fits = isinstance(found, ScorerError) and (outcome == FAILS or not is_retriable)
        if not fits:
            self._failed(scorer, name, f"expected {outcome}, got {found!r}")

    def _failed(self, scorer: Any, name: str, what: str) -> None:
        self.failures.append(f"{scorer.__name__}: {name[:60]}: {what}")

    def _search(self, name: str, error: BaseException) -> None:
        """Look for the key in all that a host may log of an error."""
        texts = ["".join(traceback.format_exception(error))]
        for each in _chain(error):
            texts += [str(each), repr(each), repr(each.args), repr(vars(each))]
        for text in texts:
            if KEY in text or KEY[:12] in text or repr(KEY)[1:-1] in text:
                self.failures.append(f"{name}: the key is told: {_around(text)}")
                return

    def _unhandled(self, _: object, context: dict[str, Any]) -> None:
        self.failures.append(f"asyncio was told: {context}")


def _table(url: str, **more: Any) -> dict[str, Any]:
    limits = {"timeout_s": TIMEOUT_S, "deadline_s": DEADLINE_S, "max_response_mb": 1}
    return {"base_url": url, "model": "m", **limits, **more}


async def _honest(scorer: Any) -> Any:
    with FaultServer(good) as server:
        async with aclosing(scorer(_table(server.url, timeout_s=PATIENCE_S))) as it:
            return await it.score([PROMPT])


async def _some_at_once(coroutines: Sequence[Any]) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(coroutine: Any) -> None:
        async with room:
            await coroutine

    await asyncio.gather(*map(one, coroutines))


async def _all_closed(server: FaultServer) -> bool:
    began = time.monotonic()
    while server.open and time.monotonic() - began < PATIENCE_S:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    return not server.open


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException | None] = [None]
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and each not in seen:
            seen.append(each)
            waiting += [each.__cause__, each.__context__]
            yield each


def _around(text: str) -> str:
    at = max(text.find(KEY[:12]), 0)
    return repr(text[max(0, at - 100) : at + 100])


@contextmanager
def _everything_logged() -> Iterator[Any]:
    """Every logger at debug level; what was logged so far."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    root, handler = logging.getLogger(), Kept()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lambda: "\n".join(lines)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


# -- a server that fails every third time ---------------------------------------------------------

SHARE = 0.3
MEMORIES, RESPONSES = 10, 6


def thirty_percent(trials: int) -> Finding:
    """The full matrix over a server that fails three times in ten."""
    failures, asked, failed, took_s = asyncio.run(_matrices(trials))
    return Finding(
        "with 30 % of attempts failing, every run completes with exact values",
        f"score-full of {MEMORIES} memories and {RESPONSES} responses over HTTP, 12 attempts",
        trials,
        failures,
        f"{failed} of {asked} attempts failed; {took_s:.0f} s",
    )


async def _matrices(trials: int) -> tuple[list[str], int, int, float]:
    failures: list[str] = []
    asked = failed = 0
    began = time.monotonic()

    async def one(seed: int) -> None:
        nonlocal asked, failed
        reply = _Unreliable(random.Random(seed))
        context = _conversation(random.Random(seed))
        expected, _ = await _matrix(context, {"scorer": "toy"})
        with FaultServer(reply) as server:
            table = _table(server.url, scorer="score", max_attempts=12, deadline_s=300.0)
            found, error = await _matrix(context, {**table, "timeout_s": 30.0})
        asked, failed = asked + reply.asked, failed + reply.failed
        if error is not None or found != expected:
            failures.append(f"run {seed}: {error or 'other values'}")

    await _some_at_once([one(seed) for seed in range(trials)])
    return failures, asked, failed, time.monotonic() - began


class _Unreliable:
    """A reply that is one of the faults that pass, three times in ten."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._faults = [
            fault.reply
            for fault in every("http://127.0.0.1:9")
            # Those that take a time-out are tried elsewhere.
            if fault.outcome == RETRIED and not _takes_long(fault.name)
        ]
        self._faults += [reset, says(503, "Retry-After: 0.01"), says(429, "Retry-After: 0")] * 10
        self.asked = 0
        self.failed = 0

    async def __call__(self, it: Exchange) -> None:
        self.asked += 1
        if self._rng.random() >= SHARE:
            return await good(it)
        self.failed += 1
        return await self._rng.choice(self._faults)(it)


def _takes_long(name: str) -> bool:
    return any(word in name for word in ("silent", "drip", "without end", "Retry-After", "retry"))


async def _matrix(context: Context, server: dict[str, Any]) -> tuple[Any, str | None]:
    """Each memory's row, and the error of the run."""
    mind, heard = StubMind(context), RecordingListener()
    settings = {"server": server, "plugins": {"disabled": ["score-recorder"]}}
    async with Registry(mind, settings) as registry:
        registry.load_entry_points()
        registry.register(heard, name="heard")
        registry.dispatch(MindCommand.SCORE_FULL)
        await registry.wait_idle()
    stats = mind.state.memory_last_run
    rows = {
        score.key: [(it.entry_idx, it.node_id, it.signed) for it in score.divergences]
        for score in heard.scores
    }
    return rows, None if stats is None else stats.error


def _conversation(rng: random.Random) -> Context:
    def node(number: int, role: Role, length: int, key: str | None = None) -> Node:
        ids = tuple(rng.randrange(1, 40) for _ in range(length))
        body = (2, length) if role == "assistant" else (0, 0)
        return Node(f"n{number}", role, "text", ids, body, memory_key=key)

    memories = [node(index, "memory", 5, f"k{index}") for index in range(MEMORIES)]
    said = []
    for index in range(RESPONSES):
        said += [node(100 + index, "user", 4), node(200 + index, "assistant", 8)]
    return Context((), tuple(memories), tuple(said))


ATTACKS: dict[Attack, int] = {every_fault: 200, thirty_percent: 100, slow_clients: 1000}
