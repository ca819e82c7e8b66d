"""The stream of events: all of it, from any point on, at each follower's own pace."""

import asyncio
import json
import socket

import aiohttp
import pytest

from mindhooks import FinetuneStats, MemoryScore, MemoryStats, Outcome, ResponseDivergence
from mindscore.review.runs import Live, in_words
from mindscore.review.stream import StreamPace

PATIENCE_S = 30
QUICK = StreamPace(together=0.01, heartbeat=0.05, taken=0.2)


def _score(key, nats=1.5):
    return MemoryScore(key, nats, "full", (ResponseDivergence(1, "n", nats, nats),))


class Follower:
    """A connection to the events; ``lines`` are what came."""

    def __init__(self, session, url, headers=None):
        self._asking = session.get(url, headers=headers)

    async def __aenter__(self):
        self._answer = await self._asking.__aenter__()
        assert self._answer.content_type == "text/event-stream"
        return self

    async def __aexit__(self, *_):
        self._answer.close()

    async def line(self, start):
        """The rest of the next line that begins so."""
        async with asyncio.timeout(PATIENCE_S):
            async for raw in self._answer.content:
                if raw.decode().startswith(start):
                    return raw.decode().removeprefix(start).strip()
        raise AssertionError(f"the stream ended before {start!r}")

    async def event(self):
        """The next event: its id, its kind, what it says."""
        id_ = int(await self.line("id: "))
        return id_, await self.line("event: "), json.loads(await self.line("data: "))


@pytest.fixture
def streaming(tables, transcript, reviewing):
    """A page, and sessions that have been let in to it."""
    with reviewing(tables, transcript(), pace=QUICK) as page:
        yield page


async def _let_in(page):
    session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
    async with session.get(page.address) as answer:
        assert answer.status == 200
    return session


async def _on(page, act):
    """Do something on the page's loop."""

    async def run():
        act()

    await asyncio.to_thread(page.run, run())


async def test_a_follower_that_lost_its_connection_goes_on_where_it_was(streaming):
    live, url = streaming.runs.live, f"{streaming.url}/events"
    async with await _let_in(streaming) as session:
        async with Follower(session, url) as follower:
            await _on(streaming, lambda: live.hear(_score("a")))
            last, kind, said = await follower.event()
            assert (kind, said) == ("score", {"number": 1, "key": "a", "nats": "1.50"})
        await _on(streaming, lambda: live.hear(_score("b")))
        async with Follower(session, url, {"Last-Event-ID": str(last)}) as follower:
            assert (await follower.event())[2]["key"] == "b"
        async with Follower(session, f"{url}?after={last}") as follower:
            assert (await follower.event())[2]["key"] == "b"
        for unknown in ("0", "999", "-1", "²", "x", "9" * 5000):
            async with Follower(session, url, {"Last-Event-ID": unknown}) as follower:
                assert (await follower.event())[2]["key"] == "a"


async def test_a_quiet_stream_says_that_it_lives(streaming):
    async with (
        await _let_in(streaming) as session,
        Follower(session, f"{streaming.url}/events") as follower,
    ):
        assert await follower.line("retry: ") == "2000"
        for _ in range(3):
            assert await follower.line(": ") == "still here"
        await _on(streaming, lambda: streaming.runs.live.hear(_score("a")))
        assert (await follower.event())[1] == "score"


async def test_a_follower_that_takes_nothing_is_dropped_and_keeps_nobody_waiting(streaming):
    live = streaming.runs.live
    async with await _let_in(streaming) as session:
        cookie = next(iter(session.cookie_jar))
        with socket.create_connection(("127.0.0.1", streaming.port)) as deaf:
            deaf.sendall(
                f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{streaming.port}\r\n"
                f"Cookie: {cookie.key}={cookie.value}\r\n\r\n".encode()
            )
            async with Follower(session, f"{streaming.url}/events") as follower:
                # More than any socket holds.
                for number in range(200):
                    key = f"{number} " + "x" * 100_000
                    await _on(streaming, lambda key=key: live.hear(_score(key)))
                    assert (await follower.event())[2]["key"] == key
            deaf.settimeout(PATIENCE_S)

            def read_to_the_end():
                return sum(map(len, iter(lambda: deaf.recv(2**20), b"")))

            assert await asyncio.to_thread(read_to_the_end) < 200 * 100_000


async def test_a_stream_ends_with_the_server(tables, transcript, reviewing):
    with reviewing(tables, transcript()) as page:
        session = await _let_in(page)
        answer = await session.get(f"{page.url}/events")
    async with asyncio.timeout(PATIENCE_S):
        assert b"retry" in await answer.content.read()
    await session.close()


def test_of_activities_only_the_latest_is_kept():
    live = Live()
    with live.activity("a") as line:
        for done in range(1000):
            line.update("b", done, 1000)
    live.hear(_score("tea"))
    events = live.since(0)
    assert [event.kind for event in events] == ["activity", "score"]
    assert events[0].data == {"lines": []}


def test_several_activities_are_told_together():
    live = Live()
    with live.activity("one"), live.activity("two") as second:
        second.update("three", 1, 2)
        assert live.activity_line == "one · three"
        assert live.since(0)[-1].data["lines"] == [
            {"text": "one", "done": None, "total": None},
            {"text": "three", "done": 1, "total": 2},
        ]
    assert live.activity_line is None


def test_what_a_command_found_before_is_forgotten_when_the_next_begins():
    live = Live()
    live.hear(_score("a"))
    last = live.last
    live.begin()
    assert live.since(0) == []
    live.hear(_score("b"))
    assert [event.data["key"] for event in live.since(last)] == ["b"]


def test_one_of_a_kind_is_told_in_the_singular():
    memories = MemoryStats({"tea": Outcome("scored")}, 1, 1, None, 0.5, None)
    assert in_words(memories) == "1 of 1 memory scored; 1 call, 1 token sent, 0.5 s"
    searched = FinetuneStats(1, 1, 1.0, 2.0, 2, 1200, None, 0.5, "cancelled")
    said = "stopped: 1 candidate in 1 response; 2 calls, 1,200 tokens sent, 0.5 s"
    assert in_words(searched) == said
