"""Send spans to ``mindscore collect`` for a minute, kill it twice, and count what is kept.

python tests/bench/collect.py [--rate 1000] [--seconds 60] [--kills 2]

Real OTLP, protobuf over loopback, gzip, batches of 100 spans from several senders, which try again
as OpenTelemetry's exporters do: after 1 s, 2 s, 4 s and so on. Batches come out of order, and some
come twice. Each span holds all that was said before, as agents' do.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import resource
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

BATCH = 100
TURNS = 10
"""Turns of a conversation."""
SENDERS = 4
AGAIN = 0.02
"""Share of the batches that are sent twice."""
LONGEST_S = 64.0
"""Seconds after which a sender gives up."""


def batch(first: int, turn: int) -> bytes:
    """Return a request with turn ``turn`` of 100 conversations."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(first, first + BATCH):
        said = [("system", "You help Nora. She drinks rooibos. " * 4)]
        for at in range(turn + 1):
            said.append(("user", f"Question {at} of conversation {number}: what shall I drink?"))
            said.append(("assistant", f"Answer {at} to {number}: a pot of rooibos, as always."))
        messages = [
            {"role": role, "parts": [{"type": "text", "content": text}]} for role, text in said
        ]
        span = spans.add(
            trace_id=(number + 1).to_bytes(16, "big"), span_id=(turn + 1).to_bytes(8, "big")
        )
        span.end_time_unix_nano = 1_790_000_000_000_000_000 + turn
        values = {
            "gen_ai.operation.name": "chat",
            "gen_ai.conversation.id": f"conversation {number}",
            "gen_ai.input.messages": json.dumps(messages[:-1]),
            "gen_ai.output.messages": json.dumps(messages[-1:]),
        }
        for key, value in values.items():
            span.attributes.add(key=key).value.string_value = value
    return gzip.compress(request.SerializeToString(), 1)


def batches(count: int, chance: random.Random) -> Iterator[tuple[int, int]]:
    """Yield the first conversation and the turn of each batch, neighbours out of order."""
    order = [
        (group * BATCH, turn)
        for group in range(-(-count // (BATCH * TURNS)))
        for turn in range(TURNS)
    ]
    for at in range(0, len(order) - 1, 2):
        if chance.random() < 0.3:
            order[at], order[at + 1] = order[at + 1], order[at]
    yield from order


class Collector:
    """The command, on one port and one queue, however often it is killed."""

    def __init__(self, folder: Path, port: int) -> None:
        self._environment = {**os.environ, "XDG_DATA_HOME": str(folder)}
        self._port = port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mindscore", "collect", "--port", str(self._port),
            "--idle-s", "1000000", "--set", "server.scorer=toy",
            env=self._environment, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line.startswith(b"collecting"), line

    async def end(self, number: int) -> None:
        """Send it a signal, and wait for its end."""
        assert self._process is not None
        self._process.send_signal(number)
        await self._process.communicate()

    @property
    def peak_mib(self) -> int:
        """The most memory that the process has had."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024


async def send(session: aiohttp.ClientSession, url: str, body: bytes, done: dict[str, Any]) -> None:
    """Send a batch as OpenTelemetry's exporter does, until it is taken."""
    headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
    pause_s = 1.0
    began = time.monotonic()
    while pause_s <= LONGEST_S:
        try:
            async with session.post(url, data=body, headers=headers) as response:
                await response.read()
                if response.status == 200:
                    done["taken"] += BATCH
                    done["slowest"] = max(done["slowest"], time.monotonic() - began)
                    return
                assert response.status in (429, 502, 503, 504), response.status
        except (aiohttp.ClientError, OSError):
            pass
        done["retries"] += 1
        await asyncio.sleep(pause_s)
        pause_s *= 2
    raise AssertionError("a sender has given up")


async def measure(rate: int, seconds: int, kills: int, folder: Path, port: int) -> dict[str, Any]:
    """Send ``rate`` spans a second, and return what was sent, kept and taken."""
    chance = random.Random(1)
    collector = Collector(folder, port)
    await collector.start()
    done: dict[str, Any] = {"sent": 0, "twice": 0, "taken": 0, "retries": 0, "slowest": 0.0}
    url = f"http://127.0.0.1:{port}/v1/traces"
    bodies: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1000)

    async def sender(session: aiohttp.ClientSession) -> None:
        while (body := await bodies.get()) is not None:
            await send(session, url, body, done)

    async def killer() -> None:
        for _ in range(kills):
            await asyncio.sleep(seconds / (kills + 1) * chance.uniform(0.8, 1.0))
            await collector.end(signal.SIGKILL)
            await collector.start()

    began = time.monotonic()
    async with aiohttp.ClientSession() as session:
        senders = [asyncio.create_task(sender(session)) for _ in range(SENDERS)]
        killing = asyncio.create_task(killer())
        for number, (first, turn) in enumerate(batches(rate * seconds, chance)):
            await asyncio.sleep(max(0.0, began + number * BATCH / rate - time.monotonic()))
            body = batch(first, turn)
            done["sent"] += BATCH
            await bodies.put(body)
            if chance.random() < AGAIN:
                done["twice"] += BATCH
                await bodies.put(body)
        done["seconds"] = time.monotonic() - began
        await killing
        for _ in senders:
            await bodies.put(None)
        await asyncio.gather(*senders)
    done["all taken after"] = time.monotonic() - began
    done["peak MiB"] = collector.peak_mib
    await collector.end(signal.SIGTERM)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done["collector's CPU s"] = used.ru_utime + used.ru_stime
    return done


def kept(folder: Path) -> dict[str, Any]:
    """Return what the queue holds."""
    file = folder / "mindscore" / "collect" / "default.sqlite3"
    with closing(sqlite3.connect(file)) as queue:
        ask = lambda query: queue.execute(query).fetchone()[0]  # noqa: E731
        return {
            "spans": ask("SELECT count(turn_id) FROM known_turns"),
            "conversations": ask("SELECT count(*) FROM branches"),
            "waiting": ask("SELECT count(*) FROM waiting"),
            "shortest": ask(
                "SELECT min(n) FROM (SELECT count(*) n FROM known_turns GROUP BY branch)"
            ),
            "longest": ask(
                "SELECT max(n) FROM (SELECT count(*) n FROM known_turns GROUP BY branch)"
            ),
            "file MiB": file.stat().st_size >> 20,
        }


def main() -> int:
    """Print what was sent and what is kept; 1 where a span was lost, or kept twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--port", type=int, default=43180)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = asyncio.run(
            measure(options.rate, options.seconds, options.kills, folder, options.port)
        )
        found = kept(folder)
    sys.stdout.write(f"sent  {done}\nkept  {found}\n")
    whole = found["shortest"] == found["longest"] == TURNS
    is_right = found["spans"] == done["sent"] and whole
    is_right &= found["conversations"] == found["waiting"] == done["sent"] // TURNS
    sys.stdout.write("nothing lost, nothing twice\n" if is_right else "LOST OR TWICE\n")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
