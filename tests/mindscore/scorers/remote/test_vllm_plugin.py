"""The ``vllm`` scorer where mindscore's plugin answers ``/v1/score``."""

import asyncio

import pytest

from mindhooks import ScorerError, WirePrompt
from mindscore.scorers.remote.auto import AutoScorer
from mindscore.scorers.remote.vllm import VLLMScorer

from ...imitations import VLLMImitation
from .test_prefix_reuse import exact, prompts, scored, scorer

SCORE = "/v1/score"


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("kind", [VLLMScorer, AutoScorer])
async def test_prompts_are_scored_by_the_plugin(kind, at_once):
    asked = prompts()
    server = VLLMImitation(plugin=True, generate="on")
    async with server, scorer(server.url, kind, priority=7) as it:
        totals, computed = await scored(it, asked, at_once=at_once)
        assert it.reuses_prefixes is True
        [[score]] = (await it.score(asked[:1])).ranges
    assert totals == await exact(asked)
    assert len(score.values) == asked[0].ranges[0][1] - asked[0].ranges[0][0]
    assert sum(score.values) == pytest.approx(score.total)
    assert computed < sum(len(it.tokens) for it in asked)
    [first, *_] = sent = [it for it in server.requests if it.method == "POST"]
    assert {it.path for it in sent} == {SCORE}
    assert first.body == {
        "model": "m",
        "prompt": list(asked[0].tokens),
        "score_ranges": [list(it) for it in asked[0].ranges],
        "logprobs": 1,
        "priority": 7,
    }
    assert [it.path for it in server.requests if it.method == "GET"].count(SCORE) == 1


async def test_prompts_at_once_wait_for_the_prefix_that_they_share():
    asked = prompts()
    counts = []
    for at_once in (False, True):
        server = VLLMImitation(plugin=True, delay_s=0.01)
        async with server, scorer(server.url) as it:
            _, computed = await scored(it, asked, at_once=at_once)
        counts.append(computed)
        assert computed == server.computed
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "answer",
    [
        {"server": "somebody", "version": "1", "vllm": "2"},
        {"scores": []},
        b"<html>",
        404,
        405,
        500,
    ],
)
async def test_another_answer_means_the_stock_way(answer, score_server):
    entry = {"logprob": -2.0}
    choice = {"index": 0, "text": "", "prompt_logprobs": [None, {"6": entry}]}
    score_server.script({"version": "0.32.0"}, answer, 403)
    score_server.always({"choices": [choice]})
    async with scorer(score_server.url) as it:
        for _ in range(2):
            prompt = WirePrompt((5, 6), (), ((1, 2),), ("a",))
            assert [it.total for it in (await it.score([prompt])).ranges[0]] == [-2.0]
    assert [it.path for it in score_server.requests].count(SCORE) == 1


async def test_what_the_plugin_refuses_is_scored_in_no_other_way():
    asked = prompts()
    server = VLLMImitation(plugin=True, generate="on", max_model_len=199)
    async with server, scorer(server.url) as it:
        with pytest.raises(ScorerError, match="maximum context length"):
            await it.score(asked[:1])
        totals, _ = await scored(it, asked[1:])
    assert totals == await exact(asked[1:])
    assert {it.path for it in server.requests if it.method == "POST"} == {SCORE}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([-1.0], "token_logprobs: expected 2 entries, got 1"),
        ([-1.0, 0.5], "token_logprobs[1]: 0.5 is above 0"),
        (["x", -1.0], "token_logprobs"),
    ],
)
async def test_values_that_do_not_fit_are_an_error(values, says, score_server):
    plugin = {"server": "mindscore", "version": "1", "vllm": "0.32.0"}
    score_server.script({"version": "0.32.0"}, plugin)
    score_server.always({"scores": [{"total_logprob": -2.0, "token_logprobs": values}]})
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError) as caught:
            await it.score([WirePrompt((5, 6, 7), (), ((1, 3),), ("a",))])
    assert says in str(caught.value)


async def test_a_call_that_is_cancelled_holds_up_no_other():
    asked = prompts()
    async with VLLMImitation(plugin=True) as server, scorer(server.url, timeout_s=90) as it:
        await it.score([prompts(5)[0]])
        server.delay_s = 60
        first = asyncio.create_task(it.score(asked[:1]))
        await asyncio.sleep(0.05)
        others = asyncio.create_task(scored(it, asked[1:], at_once=True))
        await asyncio.sleep(0.05)
        server.delay_s = 0
        first.cancel()
        totals, _ = await asyncio.wait_for(others, 10)
    assert totals == await exact(asked[1:])


@pytest.mark.parametrize(
    "options", [{"plugin": True}, {"generate": "on"}, {"generate": "v1-runner"}]
)
async def test_a_server_that_was_started_otherwise_is_an_error_that_says_so(options):
    asked = prompts()
    async with VLLMImitation(**options) as server, scorer(server.url) as it:
        await it.score(asked[:1])
        server.generate = "off"
        server.routes = {key: it for key, it in server.routes.items() if SCORE not in key}
        with pytest.raises(ScorerError, match=r"HTTP 40[34].*: was the server started otherwise\?"):
            await it.score(asked[1:2])
