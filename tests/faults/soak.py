"""Nothing grows: tasks, threads, file descriptors, memory, the store's file."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import resource
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindhooks import Context, MindCommand, Node, Registry, Role
from mindhooks.testing import StubMind

from .attack import Attack, Finding

GROWTH_BYTES = 16 * 2**20
"""Memory that may come and go; a leak of 1 KB per trigger would be 20 MB at full size."""

STORE_BYTES = 2 * 2**20
"""Far more than what is written in the time that ``RETENTION_S`` leaves."""

RETENTION_S = 2.0
WINDOW = 6
"""Turns of the conversation at any time; the oldest goes as a new one comes."""


@dataclass(frozen=True)
class Held:
    """What the process holds on to."""

    tasks: int
    threads: int
    files: int
    bytes: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return cls(
            len(asyncio.all_tasks()),
            threading.active_count(),
            len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - what counts are the entries
            pages * resource.getpagesize(),
        )

    def growth(self, earlier: Held) -> list[str]:
        """What there is more of than ``earlier``."""
        grown = [
            f"{name}: {getattr(earlier, name)} to {getattr(self, name)}"
            for name in ("tasks", "threads", "files")
            if getattr(self, name) > getattr(earlier, name)
        ]
        if self.bytes - earlier.bytes > GROWTH_BYTES:
            grown.append(f"memory: {(self.bytes - earlier.bytes) / 2**20:.1f} MiB more")
        return grown


class Soak:
    """A host whose conversation moves on, on one store."""

    def __init__(self, folder: str) -> None:
        self.file = Path(folder) / "store.sqlite3"
        self.mind = StubMind()
        self.settings: dict[str, Any] = {
            "server": {"scorer": "toy"},
            "store": {
                "url": f"sqlite:///{self.file}",
                "retention_days": RETENTION_S / 86_400,
            },
            "memory": {"token_cutoff": 1.0},
            "finetune": {"threshold": 0.0, "generate_alternates": True, "max_alternate_tokens": 4},
        }
        self._turn = 0

    def next_turn(self) -> None:
        """One more message and its reply, with ids and words of their own."""
        self._turn += 1
        self.mind.lines.clear()
        identity = tuple(
            Node(f"m{n}", Role.MEMORY, "m", (n, n + 1, n + 2), memory_key=f"m{n}") for n in range(3)
        )
        turns = []
        for n in range(max(0, self._turn - WINDOW), self._turn):
            turns.append(Node(f"u{n}", Role.USER, "u", (9, n % 97)))
            turns.append(
                Node(f"a{n}", Role.ASSISTANT, "a", (8, n % 89, n % 5, 7), body=(1, 4),
                     timestamp_ns=n)
            )  # fmt: skip
        self.mind.snapshot = Context((), identity, tuple(turns))


def triggers(trials: int) -> Finding:
    """Score triggers by the thousand, a tenth of them with memories due, some of the matrix."""
    failures, figure = asyncio.run(_soak(trials, _score))
    return Finding(
        "nothing grows with use, and the store no further than its retention",
        "score triggers, the conversation moving on",
        trials,
        failures,
        figure,
    )


def restarts(trials: int) -> Finding:
    """Finetune runs that are restarted before they end."""
    failures, figure = asyncio.run(_soak(trials, _finetune))
    return Finding(
        "nothing grows with runs that are restarted",
        "finetune triggers, most of them in the middle of a run",
        trials,
        failures,
        figure,
    )


async def _score(soak: Soak, registry: Registry, number: int) -> None:
    is_due = number % 10 == 0
    registry.settings = {
        **soak.settings,
        "memory": {"token_cutoff": 1.0, "interval_s": 0 if is_due else 3600},
    }
    registry.dispatch(MindCommand.SCORE_FULL if number % 50 == 0 else MindCommand.SCORE)
    if number % 3 == 0:
        # Busy, or begun by the other command.
        registry.dispatch(MindCommand.SCORE)
    await registry.wait_idle()


async def _finetune(soak: Soak, registry: Registry, number: int) -> None:
    registry.dispatch(MindCommand.SCORE_FINETUNE)
    if number % 10 == 0:
        await registry.wait_idle()
    else:
        await asyncio.sleep(random.random() * 0.01)


async def _all_worker_threads() -> None:
    """Have the loop's pool make as many threads as it ever will: their coming is no growth."""
    most = min(32, (os.cpu_count() or 1) + 4)
    together = threading.Barrier(most)
    await asyncio.gather(*(asyncio.to_thread(together.wait) for _ in range(most)))


async def _soak(trials: int, step: Any) -> tuple[list[str], str]:
    largest = 0
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            soak = Soak(folder)
            await _all_worker_threads()
            before_all = Held.now()
            async with Registry(soak.mind, soak.settings) as registry:
                registry.load_entry_points()
                # What is imported and cached by the first runs is no growth.
                warm = max(1, min(trials // 5, 1000))
                for number in range(trials):
                    if number == warm:
                        await registry.wait_idle()
                        earlier = Held.now()
                    if number % 5 == 0:
                        soak.next_turn()
                    await step(soak, registry, number)
                    if number % 100 == 0 and soak.file.exists():
                        largest = max(largest, soak.file.stat().st_size)
                await registry.wait_idle()
                soak.mind.state.finetune_candidates.clear()
                later = Held.now()
                errors = registry.task_errors()
            failures = later.growth(earlier) + [f"{name}: {it!r}" for name, it in errors.items()]
            after = Held.now()
            if after.tasks > before_all.tasks:
                failures.append(f"tasks after aclose: {after.tasks - before_all.tasks}")
            if largest > STORE_BYTES:
                failures.append(f"the store grew to {largest:,} bytes")
    finally:
        logging.disable(logging.NOTSET)
    grown = (later.bytes - earlier.bytes) / 2**20
    return failures, f"memory {grown:+.1f} MiB, store at most {largest / 1024:.0f} KiB"


ATTACKS: dict[Attack, int] = {triggers: 20_000, restarts: 2_000}
