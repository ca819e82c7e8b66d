"""Runs of mindscore that can be killed, each in a process forked off this one.

python tests/faults/victim.py FOLDER      answers each request, a JSON object a line, with another

A request has ``command``, ``url``, ``resume``, ``journal`` and ``kill_after_s`` (null: never). A
listener that is registered after the recorder appends each key that it hears to the file
``journal``. The answer says whether the run was ``killed``, how many ``seconds`` it lasted and, at
its end, its ``statuses`` by memory, its ``calls`` and its ``error``.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindhooks import Context, MemoryScore, Node, Registry, Role, WirePrompt, hookimpl
from mindhooks.testing import StubMind
from mindscore.scorers import toy
from mindscore.scorers.toy import ToyScorer

MEMORIES = 12
PAUSE_S = 0.002


class _Journal:
    """Appends each key that it hears of, one a line; what is written is not lost with us."""

    def __init__(self, file: str) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @hookimpl
    def on_score(self, score: MemoryScore) -> None:
        os.write(self._descriptor, f"{score.key}\n".encode())


class _Unhurried(ToyScorer):
    """The toy, each prompt a little late, so that there is a moment to be killed at."""

    async def score(self, prompts: Sequence[WirePrompt]) -> Any:
        await asyncio.sleep(random.uniform(0, PAUSE_S))
        return await super().score(prompts)


def conversation() -> Context:
    """A dozen memories, each repeated by a response of its own."""
    memories = [
        Node(f"m{number}", Role.MEMORY, "", (100 + number, 1), memory_key=f"k{number}")
        for number in range(MEMORIES)
    ]
    responses = [
        Node(f"r{number}", Role.ASSISTANT, "said", (6, 100 + number, 7), (1, 3))
        for number in range(MEMORIES)
    ]
    return Context((), tuple(memories), tuple(responses))


async def _run(request: dict[str, Any]) -> dict[str, Any]:
    tables = {
        "server": {"scorer": "toy"},
        "memory": {"token_cutoff": 1.0},
        "store": {"url": request["url"], "retention_days": 0},
        "plugins": {"settings": {"memory-scoring": {"resume": request["resume"]}}},
    }
    mind = StubMind(conversation())
    async with Registry(mind, tables) as registry:
        registry.load_entry_points()
        registry.register(_Journal(request["journal"]), name="journal")
        registry.dispatch(request["command"])
        await registry.wait_idle()
    stats = mind.state.memory_last_run
    assert stats is not None
    statuses = {key: outcome.status for key, outcome in stats.outcomes.items()}
    return {"statuses": statuses, "calls": stats.calls, "error": stats.error}


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(asyncio.run(_run(request))).encode())
        os._exit(0)
    os.close(writing)
    # Readable at the end of the run, whether it ended or failed.
    ended, _, _ = select.select([reading], [], [], request["kill_after_s"])
    if not ended:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seconds = time.monotonic() - started
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    return {"killed": not said, "seconds": seconds, **(json.loads(said) if said else {})}


def main() -> None:
    """Answer requests until there are no more."""
    toy.ToyScorer = _Unhurried  # type: ignore[misc]
    folder = Path(sys.argv[1])
    warm = {"command": "score", "url": f"sqlite:///{folder}/warm", "resume": True}
    asyncio.run(_run({**warm, "journal": f"{folder}/warm-journal"}))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_serve(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
