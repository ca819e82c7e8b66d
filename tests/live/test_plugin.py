"""The plugin for vLLM, in a real one: ``/v1/score`` by the original protocol."""

import json
import math
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.live.server import NAME

from mindscore import __version__

pytestmark = pytest.mark.parametrize("server", ["equipped"], indirect=True)

PROMPT = [number * 7919 % 40_000 + 100 for number in range(700)]
BLOCK = 128
"""Tokens of a block of the prefix cache, on a CPU."""


def post(server, path, body):
    """Return the status and the JSON of the answer."""
    request = urllib.request.Request(
        server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def score(server, prompt, ranges, **more):
    body = {"model": NAME, "prompt": prompt, "score_ranges": ranges, "logprobs": 1, **more}
    return post(server, "/score", body)


def totals(answer):
    return [it["total_logprob"] for it in answer["scores"]]


def in_full(server, prompt, ranges):
    """Return the totals by vLLM's own endpoint, which computes all of the prompt."""
    body = {"model": NAME, "prompt": prompt, "max_tokens": 1, "prompt_logprobs": 0}
    status, answer = post(server, "/completions", body)
    assert status == 200, answer
    rows = answer["choices"][0]["prompt_logprobs"]
    values = [None, *(rows[at][str(prompt[at])]["logprob"] for at in range(1, len(prompt)))]
    return [math.fsum(values[start:end]) for start, end in ranges]


def test_it_says_who_it_is(server):
    with urllib.request.urlopen(server.url + "/score", timeout=30) as answer:
        said = json.load(answer)
    assert said["server"] == "mindscore"
    assert said["version"] == __version__
    assert said["vllm"].startswith("0.32.0")


def test_totals_are_those_of_the_whole_prompt_and_its_beginning_is_computed_once(server):
    prompt, ranges = [5, *PROMPT[1:]], [[300, 320], [400, 401], [640, 700]]
    right = in_full(server, prompt, ranges)
    for least in (0, 2 * BLOCK):
        status, answer = score(server, prompt, ranges)
        assert status == 200, answer
        assert totals(answer) == pytest.approx(right, abs=1e-4)
        assert [len(it["token_logprobs"]) for it in answer["scores"]] == [20, 1, 60]
        usage = answer["usage"]
        assert usage["prompt_tokens"] == len(prompt)
        assert least <= usage["prompt_tokens_details"]["cached_tokens"] < 300


def test_what_agents_have_computed_is_used(server):
    prompt = [6, *PROMPT[1:]]
    asked = {"model": NAME, "prompt": prompt[:-60], "max_tokens": 1}
    assert post(server, "/completions", asked)[0] == 200
    _, answer = score(server, prompt, [[640, 700]])
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= 4 * BLOCK
    assert totals(answer) == pytest.approx(in_full(server, prompt, [[640, 700]]), abs=1e-4)


def test_many_at_once_get_their_own_answers(server):
    prompts = [[*PROMPT[: 600 - number], 9, *PROMPT[600:]] for number in range(16)]
    ranges = [[560, 640]]
    with ThreadPoolExecutor(len(prompts)) as threads:
        answers = list(threads.map(lambda it: score(server, it, ranges)[1], prompts))
    for prompt, answer in zip(prompts, answers, strict=True):
        assert totals(answer) == pytest.approx(in_full(server, prompt, ranges), abs=1e-4)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"score_ranges": [[690, 701]]}, 400),
        ({"score_ranges": [[0, 4]]}, 400),
        ({"score_ranges": [[20, 10]]}, 400),
        ({"prompt": [*PROMPT, 10**6]}, 400),
        ({"prompt": PROMPT * 6}, 400),
        ({"model": "another"}, 404),
    ],
    ids=["past the end", "token 0", "backwards", "no token", "too long", "model"],
)
def test_what_is_wrong_is_refused_as_vllm_does(more, status, server):
    given, answer = score(server, PROMPT, [[300, 320]], **more)
    assert given == status, answer
    assert set(answer["error"]) >= {"message", "type", "code"}
