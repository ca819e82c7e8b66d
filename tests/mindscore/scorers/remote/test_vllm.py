"""The ``vllm`` scorer: what it asks of which endpoint, and what it learns of the server."""

import asyncio
import base64
import io
import json
import logging
import sys
from contextlib import aclosing

import numpy as np
import pytest

from mindhooks import ScorerError, WirePrompt
from mindscore.scorers.remote.vllm import VLLMScorer
from mindscore.scorers.toy import ToyScorer

from ...imitations import VLLMImitation

PROMPT = WirePrompt((5, 6, 5, 5, 9, 5), (), ((2, 3), (4, 6)), ("a", "b"))
OTHER = WirePrompt((5, 6, 7), (), ((1, 3),), ("a",))
ROWS, COMPLETIONS = "/inference/v1/generate", "/v1/completions"


def scorer(url, **settings):
    """A scorer of the server at ``url``."""
    limits = {"timeout_s": 10, "deadline_s": 20, "max_attempts": 2, "model": "m"}
    return aclosing(VLLMScorer({"base_url": url, **limits, **settings}))


def asked(server):
    """The paths that prompts went to, and the first of all."""
    return [it for it in server.paths if it not in ("/v1/score", "/metrics")]


async def expected(*prompts):
    answers = (await ToyScorer().score(prompts)).ranges
    return [[pytest.approx(score.total, abs=1e-5) for score in answer] for answer in answers]


async def totals(it, *prompts):
    return [[score.total for score in answer] for answer in (await it.score(prompts)).ranges]


# By /v1/completions.


async def test_by_completions_no_logprobs_are_asked_for_besides_the_prompts_own():
    async with VLLMImitation(version="0.31.0") as server, scorer(server.url, concurrency=1) as it:
        assert await totals(it, PROMPT) == await expected(PROMPT)
    version, asked = server.requests
    assert (version.method, version.path) == ("GET", "/version")
    assert (asked.method, asked.path) == ("POST", COMPLETIONS)
    assert asked.body == {
        "model": "m",
        "prompt": [5, 6, 5, 5, 9, 5],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
        "priority": 5,
    }


@pytest.mark.parametrize("priority", [-1, 0, 7])
@pytest.mark.parametrize("generate", ["off", "on"])
async def test_the_priority_is_sent_as_it_is(priority, generate):
    async with (
        VLLMImitation(generate=generate) as server,
        scorer(server.url, priority=priority) as it,
    ):
        await it.score([PROMPT])
        await it.generate(PROMPT, max_tokens=1, stop=[])
    sent = [request.body["priority"] for request in server.requests if request.body]
    assert set(sent) == {priority}


async def test_all_that_was_sent_was_computed_unless_usage_says_what_was_cached():
    async with VLLMImitation(version="0.31.0") as server, scorer(server.url) as it:
        assert (await it.score([PROMPT, OTHER])).computed_tokens == 9
    async with VLLMImitation(version="0.31.0", cached=2) as server, scorer(server.url) as it:
        assert (await it.score([PROMPT, OTHER])).computed_tokens == 5


ENTRY = {"logprob": -1.0, "rank": 1, "decoded_token": "a"}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (None, "choices[0].prompt_logprobs: is missing"),
        ([None], "choices[0].prompt_logprobs: expected 3 entries, got 1"),
        ([None, {"6": ENTRY}, None], "choices[0].prompt_logprobs[2]: is null"),
        ([None, {"6": ENTRY}, {}], "choices[0].prompt_logprobs[2]: is of token none"),
        ([None, {"6": ENTRY}, {"8": ENTRY}], "choices[0].prompt_logprobs[2]: is of token 8"),
        ([None, {"6": ENTRY}, {"7": {"logprob": 0.5}}], "choices[0].prompt_logprobs[2]: 0.5 is"),
        ([None, {"6": ENTRY}, {"7": {"logprob": None}}], "prompt_logprobs[2]"),
        ([None, {"6": ENTRY}, {"7": {}}], "prompt_logprobs[2]"),
        ([None, {"6": ENTRY}, {"x": ENTRY}], "prompt_logprobs[2]"),
    ],
)
async def test_rows_that_do_not_fit_are_an_error_that_names_the_position(rows, says, score_server):
    score_server.script({"version": "0.11.0"})
    score_server.always({"choices": [{"index": 0, "text": "", "prompt_logprobs": rows}]})
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError) as caught:
            await it.score([OTHER])
    assert str(caught.value).startswith(f"{score_server.url}{COMPLETIONS}: ")
    assert says in str(caught.value)


async def test_where_the_top_tokens_are_returned_too_the_prompts_own_is_the_one_that_counts(
    score_server,
):
    rows = [None, {"1": ENTRY, "6": {"logprob": -2.0}}, {"7": {"logprob": -3.0}, "1": ENTRY}]
    score_server.script({"version": "0.11.0"})
    score_server.always({"choices": [{"index": 0, "text": "", "prompt_logprobs": rows}]})
    async with scorer(score_server.url) as it:
        [[score]] = (await it.score([OTHER])).ranges
    assert score.values == (-2.0, -3.0)


LONG = tuple(range(1, 40_001))
LONG_PROMPT = WirePrompt(LONG, (), ((1, len(LONG)),), ("a",))
AWKWARD = {"logprob": -1.0, "decoded_token": '"}, {"7": {', "more": [{"1": {}}, {"2": {}}]}


def long_rows(entry=lambda index: {"logprob": -index / 7, "rank": 1}):
    return [None, *({str(id_): entry(index)} for index, id_ in enumerate(LONG[1:]))]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n\t", " :  ")])
async def test_a_long_answer_is_read_exactly_however_it_is_written(separators, score_server):
    answer = {"choices": [{"index": 0, "text": "", "prompt_logprobs": long_rows()}]}
    score_server.script({"version": "0.11.0"})
    score_server.always(score_server.reply(json.dumps(answer, separators=separators).encode()))
    async with scorer(score_server.url) as it:
        [[score]] = (await it.score([LONG_PROMPT])).ranges
    assert score.values == tuple(-index / 7 for index in range(len(LONG) - 1))


async def test_what_only_looks_like_the_beginning_of_a_row_does_no_harm(score_server):
    rows = long_rows(lambda index: AWKWARD)
    score_server.script({"version": "0.11.0"})
    score_server.always({"choices": [{"index": 0, "text": "", "prompt_logprobs": rows}]})
    async with scorer(score_server.url) as it:
        [[score]] = (await it.score([LONG_PROMPT])).ranges
    assert score.values == (-1.0,) * (len(LONG) - 1)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"39000": {"logprob": "-1"}}, "`$.choices[0].prompt_logprobs[38999][...].logprob`"),
        ({"39000": {}}, "`$.choices[0].prompt_logprobs[38999]"),
        ({"1": {"logprob": -1.0}}, "choices[0].prompt_logprobs[38999]: is of token 1"),
        (None, "choices[0].prompt_logprobs[38999]: is null"),
    ],
)
async def test_an_error_far_down_a_long_answer_names_the_position(row, says, score_server):
    rows = long_rows()
    rows[38_999] = row
    score_server.script({"version": "0.11.0"})
    score_server.always({"choices": [{"index": 0, "text": "", "prompt_logprobs": rows}]})
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError) as caught:
            await it.score([LONG_PROMPT])
    assert says in str(caught.value)


@pytest.mark.parametrize("indexes", [[], [0], [0, 0], [0, 1, 2], [1, 2]])
async def test_choices_that_are_not_one_for_each_prompt_are_an_error(indexes, score_server):
    choices = [{"index": index, "text": "", "prompt_logprobs": [None]} for index in indexes]
    score_server.script({"version": "0.11.0"})
    score_server.always({"choices": choices})
    async with scorer(score_server.url, concurrency=1) as it:
        with pytest.raises(ScorerError, match=r"choices: asked for \d prompts?|expected 3"):
            await it.score([OTHER, OTHER])


async def test_an_answer_of_several_megabytes_is_read_like_any_other():
    ids = tuple(index % 100_000 for index in range(30_000))
    prompt = WirePrompt(ids, (), ((1, 30_000),), ("a",))
    async with VLLMImitation(version="0.31.0") as server, scorer(server.url) as it:
        assert await totals(it, prompt) == await expected(prompt)


# By /inference/v1/generate.


async def test_rows_are_asked_for_from_the_first_range_on_and_only_those_in_ranges():
    async with VLLMImitation(generate="on") as server, scorer(server.url) as it:
        assert await totals(it, PROMPT) == await expected(PROMPT)
    [_, sent] = [it for it in server.requests if it.path in asked(server)]
    assert sent.path == ROWS
    assert len(sent.body.pop("cache_salt")) > 30
    assert sent.body == {
        "model": "m",
        "token_ids": [5, 6, 5, 5, 9, 5],
        "stream": False,
        "priority": 5,
        "sampling_params": {
            "max_tokens": 1,
            "temperature": 0,
            "detokenize": False,
            "skip_reading_prefix_cache": True,
            "prompt_logprob_start": 1,
            "prompt_logprob_token_ids": [[5], [-1], [9], [5]],
        },
    }


async def test_by_rows_every_prompt_is_a_request_of_its_own():
    async with VLLMImitation(generate="on") as server, scorer(server.url, concurrency=1) as it:
        result = await it.score([PROMPT, OTHER])
        await it.score([PROMPT, OTHER])
    assert result.computed_tokens == 9
    assert asked(server) == ["/version", *[ROWS] * 4]


@pytest.mark.parametrize("generate", ["off", "missing", "no-rows"])
async def test_where_rows_are_not_offered_it_falls_back_once_and_for_all(generate, caplog):
    caplog.set_level(logging.INFO, "mindscore")
    async with VLLMImitation(generate=generate) as server, scorer(server.url) as it:
        for _ in range(3):
            assert await totals(it, PROMPT) == await expected(PROMPT)
    tries = 2 if generate == "no-rows" else 1
    assert asked(server) == ["/version", *[ROWS] * tries, *[COMPLETIONS] * 3]
    [record] = caplog.records
    assert record.name == "mindscore"
    assert COMPLETIONS in record.getMessage()
    assert "--enable-scale-out --enable-prompt-tokens-details" in record.getMessage()


async def test_a_prompt_that_both_endpoints_refuse_is_no_reason_to_fall_back():
    async with VLLMImitation(generate="on", max_model_len=3) as server, scorer(server.url) as it:
        with pytest.raises(ScorerError, match="maximum context length"):
            await it.score([PROMPT])
        assert await totals(it, OTHER) == await expected(OTHER)
    refused = ["/version", ROWS, ROWS, COMPLETIONS]
    assert asked(server) == [*refused, "/version", ROWS]


@pytest.mark.parametrize(
    ("version", "uses"),
    [
        ("0.32.0", ROWS),
        ("0.33.1.dev5+g4ba787ec9", ROWS),
        ("v1.0", ROWS),
        ("0.31.9", COMPLETIONS),
        ("0.9.2", COMPLETIONS),
        ("dev", COMPLETIONS),
        ("", COMPLETIONS),
    ],
)
async def test_rows_are_tried_from_version_0_32_on(version, uses):
    async with VLLMImitation(generate="on", version=version) as server, scorer(server.url) as it:
        await it.score([PROMPT])
    assert asked(server) == ["/version", uses]


async def test_without_numpy_rows_are_not_tried(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    async with VLLMImitation(generate="on") as server, scorer(server.url) as it:
        await it.score([PROMPT])
    assert asked(server) == ["/version", ROWS]
    assert "prompt_logprobs" in server.requests[2].body["sampling_params"]


@pytest.mark.parametrize("hidden", [404, 403, b"<html>gateway</html>"])
async def test_a_gateway_that_lets_nothing_but_v1_through_is_fine(hidden, score_server):
    rows = [None, {"6": ENTRY}, {"7": ENTRY}]
    score_server.script(hidden)
    score_server.always({"choices": [{"index": 0, "text": "", "prompt_logprobs": rows}]})
    async with scorer(score_server.url) as it:
        assert await totals(it, OTHER) == [[-2.0]]


async def test_a_version_that_cannot_be_had_is_fine_but_a_server_that_is_gone_is_not(score_server):
    fails = score_server.reply(b"", 502, {"Retry-After": "0"})
    rows = [None, {"6": ENTRY}, {"7": ENTRY}]
    score_server.script(fails)
    score_server.always({"choices": [{"index": 0, "text": "", "prompt_logprobs": rows}]})
    async with scorer(score_server.url) as it:
        assert await totals(it, OTHER) == [[-2.0]]
    score_server.always(score_server.raw(b""))
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError, match=r"/version: the connection broke"):
            await it.score([OTHER])


async def test_prompts_asked_for_at_once_learn_together():
    async with VLLMImitation(generate="off") as server, scorer(server.url, concurrency=4) as it:
        await asyncio.gather(*(it.score([PROMPT]) for _ in range(4)))
    assert server.paths.count("/version") == 1


LITTLE = "'descr': '<f4', 'fortran_order': False"


def in_base64(data):
    return base64.b64encode(data).decode()


def npy(table):
    file = io.BytesIO()
    np.save(file, table)
    return in_base64(file.getvalue())


def headed(text):
    """A file with a header of its own and two values."""
    length = len(text).to_bytes(2, "little")
    return in_base64(b"\x93NUMPY\x01\x00" + length + text.encode() + bytes(8))


@pytest.mark.parametrize(
    ("encoded", "says"),
    [
        (npy(np.array([[-1.0]], np.float32)), "expected 2 entries, got 1"),
        (npy(np.array([[-1.0]] * 3, np.float32)), "expected 2 entries, got 3"),
        (npy(np.array([[-1.0, -1.0]] * 2, np.float32)), "1 column"),
        (npy(np.array([-1.0, -1.0], np.float32)), "1 column"),
        (npy(np.array([[-1], [-1]])), "1 column"),
        (npy(np.array([[-1.0], [np.nan]], np.float32)), "row 1: nan is not finite"),
        (npy(np.array([[-1.0], [-np.inf]], np.float32)), "row 1: -inf is not finite"),
        (npy(np.array([[-1.0], [0.5]], np.float32)), "row 1: 0.5 is above 0"),
        (npy(np.array([["a"], [None]], object)), "not a tab"),
        (in_base64(b"PK\x03\x04" + bytes(100)), "not a tab"),
        (headed(f"{{{LITTLE}, 'shape': (99999999999999, 1)}}"), "not a tab"),
        (headed(f"{{{LITTLE}, 'shape': (2, -1)}}"), "not a tab"),
        (
            headed("{'descr': [('sk', '<f4')], 'fortran_order': False, 'shape': (2, 1)}"),
            "not a tab",
        ),
        (headed("(" * 9000), "not a tab"),
        (headed("{[]: 1}"), "not a tab"),
        ("not base64", "not a tab"),
        ("", "not a tab"),
        (in_base64(b"\x93NUMPY\x01\x00"), "not a tab"),
    ],
)
async def test_a_table_that_does_not_fit_is_an_error_that_names_the_field(
    encoded, says, score_server
):
    score_server.script({"version": "0.33.0"})
    score_server.always({"prompt_token_id_logprobs": encoded})
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError) as caught:
            await it.score([OTHER])
    assert str(caught.value).startswith(f"{score_server.url}{ROWS}: prompt_token_id_logprobs: ")
    assert says in str(caught.value)
