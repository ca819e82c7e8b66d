"""Connections to ``serve``: how many, and how long each may keep it waiting."""

import asyncio
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import aiohttp
import pytest

from mindscore.http.runner import Limits, listen
from mindscore.scorers.toy import ToyScorer
from mindscore.serve.app import make_app

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
UNFINISHED = (
    b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
    b"Content-Type: application/json\r\n\r\n{"
)
SOON, PATIENCE_S = 0.2, 20


class Served:
    """The toy, or another scorer, at a port."""

    def __init__(self, listening):
        self.listening = listening
        self.port = int(listening.address.rpartition(":")[2])

    @asynccontextmanager
    async def connection(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def until(self, connections):
        async with asyncio.timeout(PATIENCE_S):
            while self.listening.connections != connections:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(scorer=None, **limits):
    app = make_app(scorer or ToyScorer())
    async with listen(app, limits=Limits(**limits)) as listening:
        yield Served(listening)


async def ended(reader):
    """Wait for the end of a connection; what it had to say."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /health HTTP/1.1\r\nHost: localhost\r\n"])
async def test_a_connection_without_a_whole_head_is_ended(sent):
    async with serving(head_s=SOON) as it, it.connection() as (reader, writer):
        writer.write(sent)
        assert await ended(reader) == b""
        await it.until(connections=0)


async def test_a_head_that_drips_is_not_waited_for_any_longer():
    began = time.monotonic()
    async with serving(head_s=SOON) as it, it.connection() as (reader, writer):
        ending = asyncio.create_task(ended(reader))
        while not ending.done():
            writer.write(b"G")
            await asyncio.sleep(0.01)
    assert time.monotonic() - began < PATIENCE_S


async def test_a_later_head_has_as_long_as_a_connection_may_be_idle():
    async with serving(head_s=60, idle_s=SOON) as it, it.connection() as (reader, writer):
        writer.write(HEALTH)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"GET")
        assert await ended(reader) == b""


async def test_a_connection_that_is_idle_is_used_again_and_then_ended():
    async with serving(head_s=60, idle_s=SOON) as it, it.connection() as (reader, writer):
        for _ in range(2):
            writer.write(HEALTH)
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        assert await ended(reader) == b""
        await it.until(connections=0)


async def test_a_request_that_is_being_served_is_not_ended(held, scored):
    async with serving(held, head_s=SOON, idle_s=SOON) as it, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{it.port}/v1/score"
        asking = asyncio.create_task(session.post(url, json=scored(7)))
        while not held.began:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await asyncio.sleep(3 * SOON)
        held.release()
        assert (await asking).status == 200


async def test_one_more_than_may_be_takes_the_place_of_the_one_that_waited_longest():
    async with serving(connections=2) as it:
        async with it.connection() as (slow, _), it.connection() as (reader, writer):
            await it.until(connections=2)
            writer.write(HEALTH)
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
            async with it.connection() as (other, other_writer):
                assert await ended(slow) == b""
                for one, to in ((other, other_writer), (reader, writer)):
                    to.write(HEALTH)
                    assert (await one.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        await it.until(connections=0)


async def test_one_more_than_are_being_served_is_refused(held, scored):
    async with serving(held, connections=1) as it, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{it.port}/v1/score"
        asking = asyncio.create_task(session.post(url, json=scored(7)))
        while not held.began:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        async with it.connection() as (refused, _):
            assert await ended(refused) == b""
        held.release()
        assert (await asking).status == 200


class Talkative(ToyScorer):
    """Has an answer of some megabytes."""

    async def tokenize(self, text):
        return [10**9] * 10**6


TALKED_TO = (
    b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Content-Length: 13\r\n\r\n{"prompt":""}'
)


async def test_an_answer_that_nobody_takes_is_given_up():
    async with serving(Talkative(), idle_s=SOON) as it, it.connection() as (_, writer):
        writer.transport.pause_reading()
        writer.write(TALKED_TO)
        await it.until(connections=1)
        await it.until(connections=0)


async def test_an_answer_that_is_taken_slowly_is_sent_whole():
    async with serving(Talkative(), idle_s=SOON) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port, limit=2**14)
        writer.write(TALKED_TO)
        taken = 0
        while not (piece := await reader.read(2**17)).endswith(b"]}"):
            assert piece
            taken += len(piece)
            await asyncio.sleep(SOON / 20)
        writer.close()
    assert taken > 10**7


async def test_a_body_that_is_compressed_is_refused():
    async with (
        serving() as it,
        aiohttp.ClientSession() as session,
        session.post(
            f"http://127.0.0.1:{it.port}/tokenize", json={"prompt": "tea"}, compress="gzip"
        ) as answer,
    ):
        assert answer.status == 415
        assert "not compressed" in (await answer.json())["error"]["message"]


async def test_nothing_is_left_when_it_ends():
    before = asyncio.all_tasks()
    async with serving() as it, it.connection() as (reader, writer), it.connection() as (idle, _):
        writer.write(HEALTH)
        await reader.readuntil(b"}")
        writer.write(HEALTH[:10])
        await it.until(connections=2)
    assert await ended(reader) == b""
    assert await ended(idle) == b""
    assert asyncio.all_tasks() == before
    assert it.listening.connections == 0


@pytest.mark.parametrize("turns", [0, 5])
async def test_what_is_open_at_the_end_is_closed(turns):
    # One asks for nothing, as browsers do that connect ahead; another comes in the last moment,
    # and is accepted some turns of the loop later.
    async with serving() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        await it.until(connections=1)
        late = socket.create_connection(("127.0.0.1", it.port))
        for _ in range(turns):
            await asyncio.sleep(0)
    assert it.listening.connections == 0
    assert await ended(reader) == b""
    writer.close()
    late.settimeout(PATIENCE_S)
    with late, suppress(ConnectionResetError):
        assert await asyncio.to_thread(late.recv, 1) == b""


async def test_an_answer_that_nobody_takes_does_not_keep_the_end():
    began = time.monotonic()
    async with serving(Talkative()) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port, limit=2**14)
        writer.write(TALKED_TO)
        await reader.readexactly(1)
    assert time.monotonic() - began < PATIENCE_S
    # It is cut short: what the client has not taken by now is not kept for it.
    assert not (await ended(reader)).endswith(b"]}")
    writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HEALTH,
        UNFINISHED,
    ],
)
async def test_one_address_keeps_no_other_request_out(sent):
    async with serving(connections=9, connections_per_address=3) as it, AsyncExitStack() as held:
        for number in range(4):
            _, writer = await held.enter_async_context(it.connection())
            writer.write(sent)
            await it.until(connections=min(number + 1, 3))
        async with it.connection() as (reader, wanted):
            wanted.write(HEALTH)
            assert b"200 OK" in await reader.readline()
        await it.until(connections=2)
