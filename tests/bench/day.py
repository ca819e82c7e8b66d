"""Print what an attached agent takes in a day of 10,000 turns, by a clock that is simulated.

python tests/bench/day.py [--turns N] [--tokens-per-hour N] [--retention-days D]

The toy scores a conversation of 40 messages at most, with 12 memories; a new one begins every 50
turns. On the way candidates are accepted, rejected and sent, the machine sleeps, its clock is set
ahead and back, and the agent is started anew. It fails if more tokens were sent in any 60 minutes
than may be, or if a decision is lost whose candidate the retention has not removed since.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindhooks import hookimpl
from mindscore._util.clock import Clock
from mindscore.config.settings import StoreSettings
from mindscore.measure.prompts import response_hash
from mindscore.session.attach import Attached
from mindscore.session.hourly_tokens import hourly_tokens
from mindscore.store import CandidateName, Review, Reviews, Store

DAY_S, HOUR_S = 86_400.0, 3600.0
MEMORIES, TALK_TURNS, WINDOW = 12, 50, 40
PATIENCE_S = 120
KIB = 1024


class SimulatedClock(Clock):
    """Time that passes only where ``pass_s`` says so; ``wall`` is what ``time.time`` is to say."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.wall = 1.8e9
        self._lock = threading.Lock()
        self._sleeping: list[tuple[float, asyncio.AbstractEventLoop, asyncio.Event]] = []

    def now(self) -> float:
        """Return the simulated time."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Wait until so much has passed."""
        woken = asyncio.Event()
        with self._lock:
            it = (self.seconds + seconds, asyncio.get_running_loop(), woken)
            self._sleeping.append(it)
        try:
            await woken.wait()
        finally:
            with self._lock:
                self._sleeping.remove(it)

    def pass_s(self, seconds: float) -> None:
        """Let time pass, and wake who has slept long enough."""
        with self._lock:
            self.seconds += seconds
            self.wall += seconds
            for until, loop, woken in self._sleeping:
                if until <= self.seconds and not loop.is_closed():
                    loop.call_soon_threadsafe(woken.set)


@dataclass
class Day:
    """An agent over a day, and what it has taken.

    ``every`` are the turns between decisions, sleeps and restarts. ``sent`` are the tokens of each
    run with its simulated time, ``most`` the most in any hour. ``decisions`` are those that were
    ``made`` on candidates which the retention has not removed since.
    """

    folder: Path
    turns: int
    limit: int
    retention_days: float
    every: tuple[int, int, int] = (100, 1900, 1500)
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    runs: int = 0
    tokens: int = 0
    most: int = 0
    restarts: int = 0
    sent: deque[tuple[float, int]] = field(default_factory=deque)
    decisions: dict[CandidateName, str] = field(default_factory=dict)
    made: int = 0

    def __post_init__(self) -> None:
        self.memories = {
            f"m{at}": f"The {word(at)} {word(at + 100)} is {word(at + 200)}."
            for at in range(MEMORIES)
        }
        self.messages: list[dict[str, str]] = []
        self.store = StoreSettings(
            url=f"sqlite:///{self.folder}/store.sqlite3", retention_days=self.retention_days
        )

    @property
    def tables(self) -> Mapping[str, Any]:
        """The settings of the agent."""
        return {
            "server": {"scorer": "toy"},
            "store": {"url": self.store.url, "retention_days": self.retention_days},
            "memory": {"token_cutoff": 1.0, "interval_s": HOUR_S},
            "finetune": {"window_fraction": 0.5, "threshold": 5.0},
            "live": {"candidates": True, "tokens_per_hour": self.limit},
        }

    def attach(self) -> Attached:
        """Attach the agent, as a process that was started anew."""
        hourly_tokens.cache_clear()
        made = Attached(
            lambda: list(self.messages), self.memories, self.tables, 1, 60.0, False, self.clock
        )
        made.registry.register(self, name="counting")
        return made

    @hookimpl
    def on_run_end(self, stats: Any) -> None:
        """Count a run's tokens, and those of the last hour."""
        now = self.clock.now()
        self.runs += 1
        if stats is None:
            return
        self.tokens += stats.prompt_tokens
        self.sent.append((now, stats.prompt_tokens))
        while now - self.sent[0][0] >= HOUR_S:
            self.sent.popleft()
        self.most = max(self.most, sum(tokens for _, tokens in self.sent))

    def turn(self, number: int) -> None:
        """Say something, and hear the answer, which quotes a memory half of the time."""
        if number % TALK_TURNS == 0 or not self.messages:
            facts = "\n".join(f"- {it}" for it in self.memories.values())
            self.messages = [{"role": "system", "content": f"You help.\n{facts}"}]
        said = self.chance.choice(list(self.memories.values()))
        if self.chance.random() < 0.5:
            said = f"{word(number)} {word(number + 1)}."
        self.messages.append({"role": "user", "content": f"Question {number % 977}?"})
        self.messages.append({"role": "assistant", "content": said})
        del self.messages[1 : -(WINDOW - 1)]

    def decide(self) -> None:
        """Decide on the candidates that wait: reject, accept, or accept and send."""
        self.removed()
        reviews, store = Reviews(self.store), Store(self.store)
        for it in asyncio.run(reviews.listed("toy")):
            if it.review is not None or it.sinks:
                continue
            choice = self.chance.choice(["rejected", "accepted", "sent", "later"])
            if choice == "later":
                continue
            decision: Any = "accepted" if choice == "sent" else choice
            asyncio.run(reviews.decide(it.name, Review(decision, "response", time.time())))
            if choice == "sent":
                whole = asyncio.run(reviews.one(it.name))
                assert whole is not None
                mark = (whole.candidate.timestamp_ns, whole.candidate.continuation_ids)
                asyncio.run(store.mark_trained([mark], "job"))
            self.decisions[it.name] = choice
            self.made += 1

    def removed(self) -> list[CandidateName]:
        """Take out the decisions whose candidates were removed since the last call; list them."""
        with contextlib.closing(sqlite3.connect(self.folder / "store.sqlite3")) as database:
            database.execute("CREATE TABLE IF NOT EXISTS day_removed (model, at, hash)")
            database.execute(
                "CREATE TRIGGER IF NOT EXISTS day_removes AFTER DELETE ON candidates BEGIN "
                "INSERT INTO day_removed "
                "VALUES (OLD.model, OLD.timestamp_ns, OLD.continuation_hash); END"
            )
            gone = [CandidateName(*it) for it in database.execute("SELECT * FROM day_removed")]
            database.execute("DELETE FROM day_removed")
            database.commit()
        return [it for it in gone if self.decisions.pop(it, None)]

    def lost(self) -> list[CandidateName]:
        """List decisions that are not as they were made, of candidates that were never removed."""
        self.removed()
        kept = {it.name: it for it in asyncio.run(Reviews(self.store).queue("toy"))}
        wrong = []
        for name, choice in self.decisions.items():
            it = kept.get(name)
            if it is None:
                wrong.append(name)
                continue
            decision = "accepted" if choice == "sent" else choice
            is_sent = bool(it.sinks) == (choice == "sent")
            if it.review is None or it.review.decision != decision or not is_sent:
                wrong.append(name)
        return wrong

    def live(self) -> Iterator[tuple[int, Attached]]:
        """Live through the day; yield the number of each turn once it is scored."""
        mind = self.attach()
        decided, slept, restarted = self.every
        try:
            for number in range(1, self.turns + 1):
                self.turn(number)
                mind.turn_ended()
                if mind._under_way is not None:
                    mind._under_way.result(PATIENCE_S)
                yield number, mind
                self.clock.pass_s(DAY_S / self.turns)
                if number % decided == 0:
                    self.decide()
                if number % slept == 0:
                    # Asleep for two hours; then the clock is set ahead by three days, or back.
                    self.clock.pass_s(2 * HOUR_S)
                    self.clock.wall += self.chance.choice([-HOUR_S, 3 * DAY_S, -3 * DAY_S])
                if number % restarted == 0:
                    mind.close()
                    self.restarts += 1
                    mind = self.attach()
        finally:
            mind.close()

    def reappeared(self, mind: Attached) -> list[CandidateName]:
        """List the candidates on the screen that were sent."""
        gone = {
            (it.timestamp_ns, it.continuation_hash)
            for it, how in self.decisions.items()
            if how == "sent"
        }
        shown = mind.state.finetune_candidates
        names = [(it.timestamp_ns, response_hash(it.continuation_ids)) for it in shown]
        return [CandidateName("toy", *name) for name in names if name in gone]


def word(number: int) -> str:
    """Return a word for a number, another one for each."""
    return "".join("aeioubcdfg"[int(digit)] + "lmnr"[int(digit) % 4] for digit in f"{number:04}")


def resident_mib() -> float:
    """Return the memory that this process holds."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [it for it in status.splitlines() if it.startswith("VmRSS:")]
    return int(line.split()[1]) / KIB


def size_mib(folder: Path) -> float:
    """Return the size of all files of the store."""
    return sum(it.stat().st_size for it in folder.iterdir()) / KIB / KIB


def main() -> None:
    """Live through a day and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--tokens-per-hour", type=int, default=100_000)
    parser.add_argument("--retention-days", type=float, default=0.25)
    parser.add_argument("--stop-after", type=int, metavar="TURN", help="print the table so far")
    given = parser.parse_args()
    say = sys.stdout.write
    say("  turn   hours    RSS MiB  files MiB      runs     tokens  most/hour  decisions ")
    say(" kept  lost\n")
    # In memory, where there is such a folder: it is not the disk that is measured.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.exists() else None) as name:
        day = Day(Path(name), given.turns, given.tokens_per_hour, given.retention_days)
        time.time = lambda: day.clock.wall
        began, failed = time.perf_counter(), False
        for number, mind in day.live():
            if day.reappeared(mind):
                say(f"turn {number}: a candidate that was sent is on the screen\n")
                failed = True
            if number % max(1, given.turns // 10) == 0:
                lost = len(day.lost())
                failed = failed or lost > 0
                say(
                    f"{number:6} {day.clock.now() / HOUR_S:7.1f} {resident_mib():10.1f} "
                    f"{size_mib(day.folder):10.1f} {day.runs:9,} {day.tokens:10,} {day.most:10,} "
                    f"{day.made:10,} {len(day.decisions):5,} {lost:5}\n"
                )
                sys.stdout.flush()
            if number == given.stop_after:
                break
        failed = failed or 0 < day.limit < day.most
        say(
            f"{day.restarts} restarts, {time.perf_counter() - began:.0f} s; in no hour more than "
            f"{day.most:,} tokens of {day.limit:,}\n"
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
