"""Priorities: sent to servers that schedule by them, and to no other."""

import asyncio
import logging
from contextlib import aclosing, asynccontextmanager

import pytest

from mindhooks import ScorerError, WirePrompt
from mindscore.scorers.remote.openai import OpenAIScorer
from mindscore.scorers.remote.sglang import SGLangScorer
from mindscore.scorers.remote.vllm import VLLMScorer

from ...imitations import OpenAIImitation, RefusedError, SGLangImitation, VLLMImitation

PROMPT = WirePrompt((5, 6, 5, 5, 9, 5), (), ((2, 3), (4, 6)), ("a", "b"))
OTHER = WirePrompt((5, 6, 7), (), ((1, 3),), ("a",))

V0 = "Got priority 5 but Priority scheduling is not enabled."
V1 = "V1 does not support priority yet."
SGLANG = "Using priority is disabled for this server. Please send a new request without a priority."
STRICT = "Unrecognized request argument supplied: priority"
PREEMPTED = "The request is aborted by a higher priority request."


def refusing(imitation, status, why, left=1000):
    """Return a server that answers ``status`` to requests with a priority, ``left`` times."""

    async def answered_with(self, request, body):
        nonlocal left
        if body and "priority" in body and left:
            left -= 1
            raise RefusedError(status, why)
        return await imitation._answered_with(self, request, body)

    return type("Refusing", (imitation,), {"_answered_with": answered_with})


KINDS = {
    "vllm": (VLLMScorer, VLLMImitation, {"version": "0.9.0"}),
    "vllm rows": (VLLMScorer, VLLMImitation, {"generate": "on"}),
    "sglang": (SGLangScorer, SGLangImitation, {}),
}


@asynccontextmanager
async def pair(kind, status, why, left=1000, **settings):
    """A server that refuses priorities, and the scorer for it."""
    scorer, imitation, options = KINDS[kind]
    table = {"model": "m", "timeout_s": 10, "max_attempts": 1, "concurrency": 1, **settings}
    async with (
        refusing(imitation, status, why, left)(**options) as server,
        aclosing(scorer({"base_url": server.url, **table})) as it,
    ):
        yield server, it


def sent(server):
    """Return, for each prompt that the server got, whether it had a priority."""
    return ["priority" in it.body for it in server.requests if it.method == "POST"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "why"), [(400, V0), (500, V0), (500, V1), (503, SGLANG), (422, STRICT)]
)
async def test_a_server_that_refuses_priorities_is_asked_again_at_once_without(
    kind, status, why, caplog
):
    caplog.set_level(logging.INFO, "mindscore")
    async with pair(kind, 200, "", 0) as (_, it):
        expected = (await it.score([PROMPT, OTHER])).ranges
    async with pair(kind, status, why) as (server, it):
        assert (await it.score([PROMPT])).ranges == expected[:1]
        assert sent(server) == [True, False]
        # That is remembered, for generating too.
        assert (await it.score([OTHER])).ranges == expected[1:]
        await it.generate(PROMPT, max_tokens=1, stop=[])
        assert sent(server) == [True, False, False, False]
    [line] = [it.getMessage() for it in caplog.records if "priority" in it.getMessage()]
    assert line.startswith(server.url)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_generation_learns_it_too(kind):
    async with pair(kind, 400, V0) as (server, it):
        await it.generate(PROMPT, max_tokens=1, stop=[])
        await it.score([OTHER])
        assert sent(server) == [True, False, False]


@pytest.mark.parametrize("kind", KINDS)
async def test_requests_at_the_same_time_all_come_through(kind):
    async with pair(kind, 400, V0, concurrency=4) as (server, it):
        await asyncio.gather(*(it.score([prompt]) for prompt in (PROMPT, OTHER) * 2))
        assert sent(server).count(True) <= 4
        assert sent(server).count(False) == 4


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("status", "why"),
    [(400, "The model's context is too short."), (500, "out of memory"), (503, PREEMPTED)],
)
async def test_another_refusal_is_an_error_and_the_priority_goes_on_being_sent(kind, status, why):
    async with pair(kind, status, why, left=1) as (server, it):
        with pytest.raises(ScorerError, match=why):
            await it.score([PROMPT])
        await it.score([PROMPT])
        assert sent(server) == [True, True]


async def test_nothing_is_learnt_of_a_request_that_is_refused_without_a_priority_too():
    async with pair("sglang", 400, V0, left=1) as (server, it):
        server.max_model_len = 3
        with pytest.raises(ScorerError, match="maximum context length"):
            await it.score([PROMPT])
        await it.score([OTHER])
        assert sent(server) == [True, False, True]


async def test_a_server_that_takes_priorities_gets_them_all():
    async with pair("vllm", 200, "", 0) as (server, it):
        await it.score([PROMPT, OTHER])
        assert sent(server) == [True, True]


async def test_the_openai_protocol_has_no_priority():
    async with (
        OpenAIImitation() as server,
        aclosing(OpenAIScorer({"base_url": server.url, "model": "m"})) as it,
    ):
        await it.score([PROMPT])
        await it.generate(PROMPT, max_tokens=1, stop=[])
        assert sent(server) == [False, False]
