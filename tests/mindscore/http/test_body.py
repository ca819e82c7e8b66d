"""Bodies of answers: how much of one is read, in what form, and what the host is kept from."""

import asyncio
import gzip
import time
import tracemalloc
import zlib
from contextlib import aclosing

import msgspec
import pytest

from mindhooks import ScorerError
from mindscore.config.settings import ServerSettings
from mindscore.http.client import RetriableError, WireClient

MIB = 2**20


class Answer(msgspec.Struct):
    x: int


@pytest.fixture
def post(score_server):
    """Posts once, with room for 1 MiB; what was answered."""

    async def post(**settings):
        limits = {"timeout_s": 20, "deadline_s": 30, "max_attempts": 1, "max_response_mb": 1}
        client = WireClient(ServerSettings(base_url=score_server.url, **{**limits, **settings}))
        async with aclosing(client) as it:
            return await it.post("/ask", {}, Answer)

    return post


def deflated(raw, wbits):
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(raw) + packer.flush()


def padded(length):
    """An answer of so many bytes."""
    return b'{"x": 1}' + b" " * (length - 8)


PACKED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZip": gzip.compress,
    "deflate": zlib.compress,
    " deflate": lambda raw: deflated(raw, -zlib.MAX_WBITS),
    "identity": bytes,
    "gzip ": lambda raw: gzip.compress(raw[:3]) + gzip.compress(raw[3:]),
}


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("length", [8, 600_000, MIB])
async def test_a_compressed_answer_is_read_up_to_the_limit(length, encoding, post, score_server):
    raw = PACKED[encoding](padded(length))
    score_server.script(score_server.reply(raw, headers={"Content-Encoding": encoding}))

    assert await post() == Answer(1)


@pytest.mark.parametrize("encoding", PACKED)
async def test_an_answer_over_the_limit_is_an_error_that_names_it_and_is_not_tried_again(
    encoding, post, score_server
):
    raw = PACKED[encoding](padded(MIB + 1))
    score_server.always(score_server.reply(raw, headers={"Content-Encoding": encoding}))

    with pytest.raises(ScorerError, match=r"over 1 MiB \(server\.max_response_mb\)") as caught:
        await post(max_attempts=3)

    assert not isinstance(caught.value, RetriableError)
    assert len(score_server.requests) == 1


async def test_what_is_asked_for_is_what_can_be_read(post, score_server):
    score_server.script({"x": 1})

    await post()

    assert score_server.requests[0].headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "sk-very\\secret"])
async def test_another_encoding_is_an_error_that_names_it(encoding, post, score_server):
    score_server.always(score_server.reply(b"{}", headers={"Content-Encoding": encoding}))

    with pytest.raises(ScorerError, match="Content-Encoding") as caught:
        await post()

    assert encoding in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [b"abc", gzip.compress(padded(50_000))[:-1], b"\x1f\x8b\x08"],
    ids=["none", "cut short", "its beginning"],
)
async def test_a_compression_that_is_broken_is_tried_again(raw, post, score_server):
    broken = score_server.reply(raw, headers={"Content-Encoding": "gzip"})
    score_server.script(broken, broken, {"x": 1})

    assert await post(max_attempts=3) == Answer(1)


async def test_a_refusal_whose_body_cannot_be_read_is_still_that_refusal(post, score_server):
    score_server.always(score_server.reply(b"abc", 404, headers={"Content-Encoding": "gzip"}))

    with pytest.raises(ScorerError, match=r"HTTP 404 Not Found; are server\.base_url"):
        await post()


@pytest.mark.parametrize("status", [200, 400])
async def test_a_bomb_takes_little_memory(status, post, score_server):
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(500)) + packer.flush()
    headers = {"Content-Encoding": "gzip"}
    score_server.script({"x": 1}, score_server.reply(bomb, status, headers=headers))
    await post()

    tracemalloc.start()
    try:
        with pytest.raises(ScorerError):
            await post()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # 500 MiB; the server's own copy of the request is in this process too.
    assert peak < 8 * MIB


async def test_the_loop_goes_on_while_a_bomb_is_inflated(post, score_server):
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(64)) + packer.flush()
    score_server.script(score_server.reply(bomb, headers={"Content-Encoding": "gzip"}))
    longest, last = 0.0, time.thread_time()

    async def tick():
        nonlocal longest, last
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now

    ticking = asyncio.create_task(tick())
    with pytest.raises(ScorerError, match="63 MiB"):
        await post(max_response_mb=63)
    ticking.cancel()

    # Of this thread's own time, of which inflating it all takes a few tenths of a second.
    assert longest < 0.1
