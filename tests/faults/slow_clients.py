"""Clients that keep ``mindscore serve`` waiting, or send what is none of a request."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp

from mindscore.http.runner import ConnectionLimiter, Limits, listen
from mindscore.scorers.toy import ToyScorer
from mindscore.serve.app import make_app

from .attack import Finding

KEY = "sk-very-secret"
HEAD_S, IDLE_S, BODY_S = 0.3, 0.6, 0.3
AT_ONCE, ROOM = 20, 32
PATIENCE_S = 15.0
"""What a connection may last on a busy machine: all limits together are a tenth of it."""

LONG = "something that comes to millions of tokens"
ASKED = {"prompt": [1, 5, 5], "score_ranges": [[1, 3]]}
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[str | None]]
"""Misbehaves; what is wrong with what it was answered, if anything."""


def head(path: str = "/v1/score", *lines: str, key: str = KEY, host: str = "localhost") -> bytes:
    """The head of a post, without its end."""
    given = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {key}"]
    return "\r\n".join([*given, "Content-Type: application/json", *lines, ""]).encode()


async def _expect(reader: asyncio.StreamReader, answer: bytes) -> str | None:
    got = await reader.read(len(answer))
    return None if got == answer else f"expected {answer!r}, got {got!r}"


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An idle connection."""


async def drips_a_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Slowloris: a byte now and then."""
    for byte in head("/v1/score", "X-A: " + "b" * 10_000):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def drips_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Slowloris: a header now and then."""
    writer.write(head())
    for index in range(1000):
        writer.write(f"X-{index}: b\r\n".encode())
        await writer.drain()
        await asyncio.sleep(0.02)


async def drips_a_second_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A good request, and then slowloris."""
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"}")
    await drips_a_head(reader, writer)


async def drips_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
    """A body, a byte now and then."""
    writer.write(head("/v1/score", "Content-Length: 10000") + b"\r\n")
    complaint = asyncio.ensure_future(_expect(reader, b"HTTP/1.1 408 "))
    while not complaint.done():
        writer.write(b" ")
        await asyncio.sleep(0.02)
    return await complaint


async def half_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Half a request, and no more to come."""
    writer.write(head())
    writer.write_eof()


async def half_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Half a body, and no more to come."""
    writer.write(head("/v1/score", "Content-Length: 10000") + b'\r\n{"prompt"')
    writer.write_eof()


async def goes_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Asks, and is gone before the answer."""
    raw = json.dumps(ASKED).encode()
    writer.write(head("/v1/score", f"Content-Length: {len(raw)}") + b"\r\n" + raw)
    writer.transport.abort()


async def takes_no_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Asks for some megabytes, and reads none of them."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    raw = json.dumps({"prompt": LONG}).encode()
    writer.write(head("/tokenize", f"Content-Length: {len(raw)}") + b"\r\n" + raw)
    # What is written to a connection that the server has ended, fails.
    while True:
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b" ")


async def large_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
    """A header of 20 kB."""
    writer.write(head("/v1/score", "X-A: " + "b" * 20_000) + b"\r\n")
    return await _expect(reader, b"HTTP/1.")


async def many_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A megabyte of headers."""
    writer.write(head("/v1/score", *(f"X-{index}: b" for index in range(100_000))))


async def large_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body without an end."""
    writer.write(head("/v1/score", "Transfer-Encoding: chunked") + b"\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 2**16 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0)


async def compressed_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
    """What would be inflated."""
    lines = ("Content-Encoding: gzip", "Content-Length: 3")
    writer.write(head("/v1/score", *lines) + b"\r\nabc")
    return await _expect(reader, b"HTTP/1.1 415 ")


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
    """No HTTP."""
    writer.write(b"\x16\x03\x01\x02\x00" * 50 + b"\r\n\r\n")
    return await _expect(reader, b"HTTP/1.")


async def garbage_behind(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
    """Good requests, and no HTTP behind them."""
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50 + b"\x00\xff\r\n\r\n")
    return await _expect(reader, b"HTTP/1.")


async def wrong_key(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
    """Another key."""
    writer.write(head("/v1/score", "Content-Length: 0", key=KEY + "x") + b"\r\n")
    return await _expect(reader, b"HTTP/1.1 401 ")


async def wrong_type(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
    """What a web page may send."""
    raw = head("/v1/score", "Content-Length: 2").replace(b"application/json", b"text/plain")
    writer.write(raw + b"\r\n{}")
    return await _expect(reader, b"HTTP/1.1 415 ")


CLIENTS: tuple[Client, ...] = (
    *(says_nothing, drips_a_head, drips_headers, drips_a_second_head, drips_a_body),
    *(half_open, half_a_body, goes_away, takes_no_answer, large_head, many_headers, large_body),
    *(compressed_body, garbage, garbage_behind, wrong_key, wrong_type),
)


class Talkative(ToyScorer):
    """Has an answer of some megabytes to ``LONG``, at once."""

    async def tokenize(self, text: str) -> list[int]:
        """A million ids."""
        return [10**9] * 10**6 if text == LONG else await super().tokenize(text)


def slow_clients(trials: int) -> Finding:
    """Each kind of client in turn, twenty at once; good requests are asked meanwhile."""
    failures, answered, slowest_s = asyncio.run(_attack(trials))
    return Finding(
        "a slow or hostile client of serve keeps nobody waiting, and is let go",
        f"{len(CLIENTS)} kinds of clients, {AT_ONCE} at once",
        trials,
        failures,
        f"{answered} good requests meanwhile, the slowest in {slowest_s:.2f} s",
    )


@asynccontextmanager
async def serving(limits: Limits, key: str | None = KEY) -> AsyncIterator[ConnectionLimiter]:
    """Serve the toy."""
    app = make_app(Talkative(), key=key, body_timeout_s=BODY_S)
    async with listen(app, limits=limits) as listening:
        yield listening


async def _attack(trials: int) -> tuple[list[str], int, float]:
    failures: list[str] = []
    times: list[float] = []
    before = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(f"asyncio was told: {context}"))
    limits = Limits(connections=ROOM, head_s=HEAD_S, idle_s=IDLE_S)
    async with serving(limits) as listening:
        asking = asyncio.create_task(_ask_well(listening.address, times, failures))
        room = asyncio.Semaphore(AT_ONCE)
        rng = random.Random(6)

        async def one(number: int) -> None:
            async with room:
                await asyncio.sleep(rng.random() / 100)
                failures.extend(await _misbehave(listening.address, CLIENTS[number % len(CLIENTS)]))

        await asyncio.gather(*map(one, range(trials)))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        began = time.monotonic()
        while listening.connections and time.monotonic() - began < PATIENCE_S:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if listening.connections:
            failures.append(f"{listening.connections} connections are left")
    await asyncio.sleep(0)
    if left := asyncio.all_tasks() - before:
        failures.append(f"tasks are left: {left}")
    return failures, len(times), max(times, default=0.0)


async def _ask_well(url: str, times: list[float], failures: list[str]) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
        while True:
            began = time.monotonic()
            async with session.post(f"{url}/v1/score", json=ASKED) as answer:
                scored = await answer.json()
            times.append(time.monotonic() - began)
            if answer.status != 200 or times[-1] > PATIENCE_S or len(scored["scores"]) != 1:
                failures.append(f"a good request: {answer.status} in {times[-1]:.1f} s")
            await asyncio.sleep(0.01)


async def _misbehave(url: str, client: Client) -> list[str]:
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    complaint = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            complaint = await client(reader, writer)
            await reader.read()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    except TimeoutError:
        complaint = "its connection is not ended"
    finally:
        writer.transport.abort()
    return [f"{client.__name__}: {complaint}"] if complaint else []
