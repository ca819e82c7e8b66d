"""The ``sglang`` scorer: what it asks of ``/generate``, and how it reads the entries."""

from contextlib import aclosing

import pytest

from mindhooks import Generated, ScorerError, WirePrompt
from mindscore.scorers.remote.sglang import SGLangScorer
from mindscore.scorers.toy import ToyScorer

from ...imitations import SGLangImitation

PROMPT = WirePrompt((5, 6, 5, 5, 9, 5), (), ((2, 3), (4, 6)), ("a", "b"))
OTHER = WirePrompt((5, 6, 7), (), ((1, 3),), ("a",))


def scorer(url, **settings):
    """A scorer of the server at ``url``, one request at a time."""
    limits = {"timeout_s": 10, "deadline_s": 20, "max_attempts": 2, "concurrency": 1}
    return aclosing(SGLangScorer({"base_url": url, **limits, **settings}))


async def test_values_are_asked_for_from_the_token_before_the_first_range_on():
    async with SGLangImitation() as server, scorer(server.url) as it:
        await it.score([PROMPT])
    [asked] = server.requests
    assert (asked.method, asked.path) == ("POST", "/generate")
    assert asked.body == {
        "input_ids": [5, 6, 5, 5, 9, 5],
        "sampling_params": {"max_new_tokens": 0, "temperature": 0},
        "return_logprob": True,
        "logprob_start_len": 1,
        "priority": -5,
    }


@pytest.mark.parametrize(("priority", "sent"), [(0, 0), (-1, 1), (7, -7)])
async def test_a_larger_priority_is_later_which_to_sglang_is_a_smaller_one(priority, sent):
    async with SGLangImitation() as server, scorer(server.url, priority=priority) as it:
        await it.score([PROMPT])
        await it.generate(PROMPT, max_tokens=1, stop=[])
    assert [request.body["priority"] for request in server.requests] == [sent, sent]


async def test_what_the_cache_held_up_to_the_first_range_was_not_computed():
    async with SGLangImitation() as server, scorer(server.url) as it:
        assert (await it.score([PROMPT])).computed_tokens == 6
        assert (await it.score([PROMPT])).computed_tokens == 5
        assert (await it.score([PROMPT, OTHER])).computed_tokens == 8


async def test_ids_that_sglang_clips_to_0_are_fine():
    prompt = WirePrompt((5, 99, 98, 6), (), ((1, 4),), ("a",))
    async with SGLangImitation(vocabulary=99) as server, scorer(server.url) as it:
        [[score]] = (await it.score([prompt])).ranges
    [[toys]] = (await ToyScorer().score([prompt])).ranges
    assert score.total == pytest.approx(toys.total, abs=1e-9)


async def test_generating_sends_ids_and_gives_back_ids_and_text(score_server):
    score_server.script({"text": " yes", "output_ids": [3, 7], "meta_info": {}})
    async with scorer(score_server.url) as it:
        assert await it.generate(OTHER, max_tokens=16, stop=[7, 8]) == Generated((3, 7), " yes")
    [asked] = score_server.requests
    assert asked.path == "/generate"
    assert asked.body == {
        "input_ids": [5, 6, 7],
        "sampling_params": {"max_new_tokens": 16, "temperature": 0, "stop_token_ids": [7, 8]},
        "priority": -5,
    }


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({}, "/generate: meta_info.input_token_logprobs: is missing"),
        ({"input_token_logprobs": None}, "/generate: meta_info.input_token_logprobs: is missing"),
        ({"input_token_logprobs": []}, "expected 3 entries, got 0"),
        ({"input_token_logprobs": [[None, 5, None], [-1, 6, None]]}, "--allow-auto-truncate"),
        (
            {"input_token_logprobs": [[None, 5, None], [-1, 6, None], [None, 7, None]]},
            "/generate: meta_info.input_token_logprobs[2]: is null",
        ),
        (
            {"input_token_logprobs": [[None, 5, None], [-1, 6, None], [0.5, 7, None]]},
            "/generate: meta_info.input_token_logprobs[2]: 0.5 is above 0",
        ),
        (
            {"input_token_logprobs": [[None, 5, None], [-1, 8, None], [-1, 7, None]]},
            "/generate: meta_info.input_token_logprobs[1]: is of token 8",
        ),
        ({"input_token_logprobs": [[None, 5], [-1, 6], [-1, 7]]}, "server.scorer"),
    ],
)
async def test_entries_that_do_not_fit_are_an_error_that_names_the_position(
    meta, says, score_server
):
    score_server.always({"text": "", "meta_info": meta})
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError) as caught:
            await it.score([OTHER])
    assert str(caught.value).startswith(f"{score_server.url}/generate: ")
    assert says in str(caught.value)


async def test_an_answer_that_does_not_say_what_was_cached_leaves_that_open(score_server):
    entries = [[None, 5, None], [-1, 6, None], [-1, 7, None]]
    score_server.always({"meta_info": {"input_token_logprobs": entries, "prompt_tokens": 3}})
    async with scorer(score_server.url) as it:
        result = await it.score([OTHER])
    assert result.computed_tokens is None
    assert result.ranges[0][0].values == (-1.0, -1.0)


async def test_a_list_of_answers_is_an_error(score_server):
    score_server.always([])
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError, match=r"server\.scorer"):
            await it.score([OTHER])
