"""Two workers of Ray against one, with a server that answers every prompt after 50 ms.

``python -m tests.bench.ray_engine [--conversations 60] [--workers 1 2] [--runs 3]``, from the
repository's root, prints medians of runs by turns. A rate is that of the answers from when every
worker has done its first conversation to the last answer. So it leaves out what Ray and its
workers take to start, and what is found takes to be merged; the time of the whole pass has both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from aiohttp import web

from mindscore.archive.ray_pass import RayPass
from mindscore.archive.sources import Sources
from mindscore.archive.survey import ArchiveReader, Survey

DELAY_S = 0.05
MEMORIES = 8
TURNS = 5


class SlowScoreServer:
    """A server of the ``score`` protocol on loopback, in a thread of its own.

    A range's total depends on its ids and on the prompt's length, so that memories have effects.
    ``at`` has the time of each answer, ``by_connection`` those of each connection.
    """

    def __init__(self, delay_s: float = DELAY_S) -> None:
        self.at: list[float] = []
        self.by_connection: dict[Any, list[float]] = defaultdict(list)
        self._delay_s = delay_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> SlowScoreServer:
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> str:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/score", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return "http://127.0.0.1:{1}".format(*self._runner.addresses[0])

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(self._delay_s)
        ids, ranges = body["prompt"], body["score_ranges"]
        totals = [-sum(ids[start:end]) % 97 - 100 - start / 16 for start, end in ranges]
        self.at.append(time.monotonic())
        if request.transport is not None:
            name = request.transport.get_extra_info("peername")
            self.by_connection[name].append(self.at[-1])
        return web.json_response({"scores": [{"total_logprob": it} for it in totals]})


def write_talks(folder: Path, count: int) -> None:
    """Write conversations of the native format with their token ids."""
    for number in range(count):
        memories = [
            {"role": "memory", "key": f"k{it}", "content": f"m{it}", "token_ids": [it + 1] * 16}
            for it in range(MEMORIES)
        ]
        turns = [
            {"role": role, "content": f"{role} {number} {turn}", "token_ids": [number + turn] * 24}
            for turn in range(TURNS)
            for role in ("user", "assistant")
        ]
        lines = (json.dumps(it) for it in (*memories, *turns))
        (folder / f"talk{number:05}.jsonl").write_text("\n".join(lines))


def measure(folder: Path, workers: int, store: Path) -> tuple[float, float]:
    """Return the answers per second of all workers, and the seconds of the whole pass."""
    with SlowScoreServer() as server:
        tables = {
            "server": {
                "scorer": "score",
                "base_url": server.url,
                "concurrency": 1,
                "self_test": False,
            },
            "memory": {"noise_repeats": 0},
            "store": {"url": f"sqlite:///{store}/store.sqlite3", "retention_days": 0},
            "ray": {"workers": workers, "folder": str(store / "ray")},
        }
        reader = ArchiveReader(Sources([folder]))
        survey = Survey(reader)
        work = RayPass(reader, tables, "score-full")
        begun = time.monotonic()
        asyncio.run(work.run(survey, survey.select()))
        whole = time.monotonic() - begun
        if work.state.failures:
            raise SystemExit(f"failed: {work.state.failures[0].error}")
        # A worker has one connection.
        first = [its[MEMORIES] for its in server.by_connection.values() if len(its) > MEMORIES]
        start = sorted(first)[workers - 1]
        answers = [it for it in server.at if it > start]
        return len(answers) / (answers[-1] - start), whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--conversations", type=int, default=60)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--runs", type=int, default=3)
    given = options.parse_args(arguments)
    rates: dict[int, list[float]] = {it: [] for it in given.workers}
    wholes: dict[int, list[float]] = {it: [] for it in given.workers}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "talks"
        folder.mkdir()
        write_talks(folder, given.conversations)
        for run in range(given.runs):
            for workers in given.workers:
                store = Path(name) / f"store{workers}-{run}"
                store.mkdir()
                rate, whole = measure(folder, workers, store)
                rates[workers].append(rate)
                wholes[workers].append(whole)
                _print(f"{workers}: {rate:.2f} answers/s, {whole:.1f} s")
    _print("\n| workers | answers/s | the whole pass, s | times as fast |\n|--:|--:|--:|--:|")
    first = rates[given.workers[0]]
    for workers in given.workers:
        # By turns, so that what else the machine does is in both.
        faster = median(its / base for its, base in zip(rates[workers], first, strict=True))
        middle = f"{median(rates[workers]):.2f} | {median(wholes[workers]):.1f}"
        _print(f"| {workers} | {middle} | {faster:.2f} |")
    return 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
