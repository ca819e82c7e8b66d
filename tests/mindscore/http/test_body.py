"""Bodies of answers: how much of one is read, in what form, and what the host is kept from."""

import asyncio
import gzip
import tracemalloc
from contextlib import aclosing, suppress

import msgspec
import pytest
from aiohttp import web

from mindhooks import ScorerError
from mindscore.config.settings import ServerSettings
from mindscore.http.client import UnavailableError, WireClient

MIB = 2**20


class Answer(msgspec.Struct):
    x: int


@pytest.fixture
def post(score_server):
    """Posts once, with room for 1 MiB; what was answered."""

    async def post():
        settings = ServerSettings(base_url=score_server.url, timeout_s=20, max_response_mb=1)
        async with aclosing(WireClient(settings)) as it:
            return await it.post("/ask", {}, Answer)

    return post


def padded(length):
    """An answer of so many bytes."""
    return b'{"x": 1}' + b" " * (length - 8)


@pytest.mark.parametrize("encoding", ["", "identity", " Identity"])
@pytest.mark.parametrize("length", [8, 600_000, MIB])
async def test_an_answer_is_read_up_to_the_limit(length, encoding, post, score_server):
    headers = {"Content-Encoding": encoding} if encoding else {}
    score_server.script(score_server.reply(padded(length), headers=headers))

    assert await post() == Answer(1)


async def test_an_answer_over_the_limit_is_an_error_that_names_it(post, score_server):
    score_server.always(score_server.reply(padded(MIB + 1)))

    with pytest.raises(ScorerError, match=r"over 1 MiB \(server\.max_response_mb\)") as caught:
        await post()

    assert not isinstance(caught.value, UnavailableError)


async def test_a_server_is_asked_not_to_compress(post, score_server):
    score_server.script({"x": 1})

    await post()

    assert score_server.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("encoding", ["gzip", "GZip", "deflate", "br", "gzip, gzip", "x\\y"])
async def test_a_compressed_answer_is_an_error_that_says_what_to_do(encoding, post, score_server):
    raw = gzip.compress(padded(8))
    score_server.always(score_server.reply(raw, headers={"Content-Encoding": encoding}))

    with pytest.raises(ScorerError, match="Content-Encoding") as caught:
        await post()

    assert encoding.lower() in str(caught.value)
    assert not isinstance(caught.value, UnavailableError)


async def test_a_refusal_whose_body_is_compressed_is_still_that_refusal(post, score_server):
    score_server.always(score_server.reply(b"abc", 404, headers={"Content-Encoding": "gzip"}))

    with pytest.raises(ScorerError, match=r"HTTP 404 Not Found; are server\.base_url"):
        await post()


@pytest.mark.parametrize("status", [200, 400])
async def test_an_answer_without_end_takes_little_memory(status, post, score_server):
    async def endless(request):
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        with suppress(ConnectionError):
            for _ in range(500):
                await response.write(bytes(MIB))
        return response

    score_server.script({"x": 1}, endless)
    await post()

    tracemalloc.start()
    try:
        with pytest.raises(ScorerError):
            await post()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # Of 500 MiB; what the server itself holds is in this process too.
    assert peak < 12 * MIB


@pytest.mark.parametrize("length", [MIB + 1, 20 * MIB])
async def test_an_answer_larger_than_what_was_asked_for_is_not_read(length, score_server):
    score_server.always(score_server.reply(padded(length)))
    settings = ServerSettings(base_url=score_server.url, timeout_s=20)

    async with aclosing(WireClient(settings)) as it:
        with pytest.raises(ScorerError, match="over 1 MiB for so short a request"):
            await it.post("/ask", {}, Answer)
        assert await it.post("/ask", {}, Answer, max_bytes=length) == Answer(1)


async def test_a_connection_is_not_used_again_after_a_cancellation_within_an_answer(score_server):
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def unfinished(request):
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"x":')
        loop.call_soon_threadsafe(begun.set)
        await asyncio.sleep(60)
        return response

    score_server.script(unfinished, {"x": 1})
    settings = ServerSettings(base_url=score_server.url, timeout_s=20)
    async with aclosing(WireClient(settings)) as it:
        asking = asyncio.create_task(it.post("/ask", {}, Answer))
        await begun.wait()
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()
        assert await it.post("/ask", {}, Answer) == Answer(1)

    first, second = score_server.requests
    assert first.peer != second.peer
