"""``mindscore.testing.ScoreServer``: what plugins and hosts test against."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest

from mindhooks import Registry, ScorerError, ScoreResult, ScorerUnavailable, WirePrompt
from mindhooks.testing import StubMind
from mindscore.config.settings import ServerSettings, parse_table
from mindscore.measure.retry import with_retries
from mindscore.scorers.remote.score import ScoreScorer
from mindscore.scorers.toy import ToyScorer
from mindscore.testing import Reply, ScoreServer

PROMPT = WirePrompt((5, 6, 7, 5, 6), (), ((1, 3), (4, 5)), ("a", "b"))


@pytest.fixture
def server():
    with ScoreServer() as server:
        yield server


@pytest.fixture
def scorer(server):
    """Makes a scorer of the server: ``async with scorer() as it``."""
    return lambda **settings: aclosing(ScoreScorer({**server.settings, **settings}))


def totals(answer):
    return [[score.total for score in row] for row in ScoreResult.of(answer).ranges]


async def test_unscripted_it_answers_what_the_toy_scorer_does(scorer):
    toy = ToyScorer()
    ids = await toy.tokenize("tea tea milk")
    prompt = WirePrompt(tuple(ids), (), (), ())
    async with scorer() as it:
        assert totals(await it.score([PROMPT])) == totals(await toy.score([PROMPT]))
        assert await it.tokenize("tea tea milk") == ids
        said = await it.generate(prompt, max_tokens=3, stop=[])
        assert said == await toy.generate(prompt, max_tokens=3, stop=[])


async def test_it_keeps_what_it_was_asked_in_order(server, scorer):
    async with scorer() as it:
        await it.tokenize("tea")
        await it.score([PROMPT])
    assert [request.path for request in server.requests] == ["/v1/tokenize", "/v1/score"]
    assert server.requests[1].body == {
        "model": "toy",
        "prompt": [5, 6, 7, 5, 6],
        "score_ranges": [[1, 3], [4, 5]],
        "logprobs": 1,
        "priority": 5,
    }
    assert server.requests[1].headers["content-type"] == "application/json"


async def test_no_key_of_the_users_is_sent(server, scorer, monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", "sk-very-secret")
    async with scorer() as it:
        await it.score([PROMPT])
    assert "Authorization" not in server.requests[0].headers


async def test_a_script_is_played_in_order_and_then_the_truth(server, scorer):
    lies = {"scores": [{"total_logprob": -1.0}, {"total_logprob": -2.0}]}
    server.script(Reply(200, lies), Reply(404))
    async with scorer() as it:
        assert totals(await it.score([PROMPT])) == [[-1.0, -2.0]]
        with pytest.raises(ScorerError, match="404"):
            await it.score([PROMPT])
        truth = await ToyScorer().score([PROMPT])
        assert totals(await it.score([PROMPT])) == totals(truth)


async def test_a_failure_shows_at_once_unless_more_attempts_are_asked_for(server, scorer):
    server.script(Reply(503), Reply(503, {"error": "busy"}, {"Retry-After": "0"}))
    async with scorer() as it:
        once = parse_table(server.settings, ServerSettings, "server")
        with pytest.raises(ScorerUnavailable, match="503"):
            await with_retries(lambda: it.score([PROMPT]), once)
        twice = msgspec.structs.replace(once, max_attempts=2)
        await with_retries(lambda: it.score([PROMPT]), twice)
    assert len(server.requests) == 3


async def test_an_answer_can_be_any_bytes(server, scorer):
    server.script(Reply(200, b"<html>"))
    async with scorer() as it:
        with pytest.raises(ScorerError, match="not JSON"):
            await it.score([PROMPT])


async def test_it_hangs_up_where_it_is_told_to(server, scorer):
    server.script(Reply(hang_up=True))
    async with scorer() as it:
        with pytest.raises(ScorerUnavailable):
            await it.score([PROMPT])
        await it.score([PROMPT])


async def test_it_is_late_where_it_is_told_to(server, scorer):
    server.script(Reply(delay_s=0.2), Reply(delay_s=60))
    async with scorer() as it:
        started = time.monotonic()
        await it.score([PROMPT])
        assert time.monotonic() - started > 0.15
    async with scorer(timeout_s=0.2) as it:
        with pytest.raises(ScorerUnavailable):
            await it.score([PROMPT])


async def test_a_request_that_is_no_json_is_kept_as_bytes_and_refused(server):
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/score", data=b"{") as response,
    ):
        assert response.status == 415
    assert server.requests[0].body == b"{"


async def test_a_registry_uses_it_by_its_settings(server):
    async with Registry(StubMind(), {"server": server.settings}) as registry:
        scorer = await registry.scorer()
        assert scorer.model == "toy"
        await scorer.score([PROMPT])
    assert [request.path for request in server.requests] == ["/v1/score"]


def test_two_servers_have_addresses_of_their_own():
    with ScoreServer() as one, ScoreServer() as other:
        assert one.url != other.url


def test_it_ends_while_a_client_still_waits():
    def ask(address):
        connection = HTTPConnection(address.netloc, timeout=30)
        with closing(connection):
            connection.request("GET", "/v1/models")
            connection.getresponse()

    with ThreadPoolExecutor() as pool, ScoreServer() as server:
        server.script(Reply(delay_s=60))
        asking = pool.submit(ask, urlsplit(server.url))
        while not server.requests and not asking.done():
            time.sleep(0.01)
    with pytest.raises(ConnectionError):
        asking.result()
