"""The ``auto`` scorer: what a server is told by, and what is said of one that is none."""

import asyncio
import logging
import socket
from contextlib import aclosing

import pytest

from mindhooks import MindhooksError, ScorerError, WirePrompt
from mindscore.config.settings import ServerSettings
from mindscore.measure.retry import with_retries
from mindscore.scorers.remote.auto import AutoScorer
from mindscore.scorers.toy import ToyScorer

from ...imitations import OpenAIImitation, SGLangImitation, VLLMImitation

SECRET = "sk-very-secret"
PROMPT = WirePrompt((5, 6, 5, 5, 9, 5), (), ((2, 3), (4, 6)), ("a", "b"))
MODELS = {"object": "list", "data": [{"id": "m", "owned_by": "somebody"}]}
SERVERS = {"vllm": VLLMImitation, "sglang": SGLangImitation, "openai": OpenAIImitation}
NAMES = {"vllm": "VLLMScorer", "sglang": "SGLangScorer", "openai": "OpenAIScorer"}


@pytest.fixture(autouse=True)
def _with_a_key(monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)


def scorer(url, **settings):
    """A scorer of the server at ``url``."""
    limits = {"timeout_s": 10, "deadline_s": 20, "max_attempts": 2, "model": "m"}
    return aclosing(AutoScorer({"base_url": url, **limits, **settings}))


async def refused(url, **settings):
    """The text of the error: one line, without the key."""
    async with scorer(url, **settings) as it:
        with pytest.raises(ScorerError) as caught:
            await it.score([PROMPT])
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert SECRET not in text
    return text


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("base_path", ["", "/v1"])
async def test_it_goes_on_as_the_scorer_for_the_server(name, base_path, caplog):
    caplog.set_level(logging.INFO, "mindscore")
    async with SERVERS[name](key=SECRET) as server, scorer(server.url + base_path) as it:
        [answer] = (await it.score([PROMPT])).ranges
        assert (await it.generate(PROMPT, max_tokens=1, stop=[])).token_ids == (5,)
        if name != "openai":
            assert len(await it.tokenize("a cat")) == 2
    [toys] = (await ToyScorer().score([PROMPT])).ranges
    assert [it.total for it in answer] == [pytest.approx(it.total, abs=1e-5) for it in toys]
    found = caplog.records[0].getMessage()
    assert NAMES[name] in found
    assert server.url in found
    assert SECRET not in caplog.text


@pytest.mark.parametrize("name", SERVERS)
async def test_the_server_is_asked_what_it_is_once(name):
    async with SERVERS[name]() as server, scorer(server.url) as it:
        await asyncio.gather(*(it.score([PROMPT]) for _ in range(4)))
        await it.tokenize("a") if name != "openai" else None
    assert server.paths.count("/v1/models") == 1


@pytest.mark.parametrize(("name", "reuses"), [("vllm", False), ("sglang", True), ("openai", None)])
async def test_what_flows_ask_of_it_is_what_was_found(name, reuses):
    async with SERVERS[name]() as server, scorer(server.url) as it:
        assert (it.model, it.noisy, it.reuses_prefixes) == ("m", True, None)
        await it.score([PROMPT])
        assert (it.model, it.noisy, it.reuses_prefixes) == ("m", True, reuses)


@pytest.mark.parametrize(
    ("answers", "path"),
    [
        ([404, {"version": "0.30.0"}], "/v1/completions"),
        ([MODELS, {"version": "0.30.0"}], "/v1/completions"),
        ([404, 404, {"version": "0.5.23"}], "/generate"),
        ([{"data": []}, 404, 404, {"model_path": "m"}], "/generate"),
        ([MODELS, 404, b"<html>", 403], "/v1/completions"),
        ([MODELS, {"x": 1}, {"x": 1}, {"x": 1}], "/v1/completions"),
    ],
)
async def test_a_server_whose_models_do_not_tell_is_told_by_its_other_paths(
    answers, path, score_server
):
    score_server.script(*answers)
    score_server.always(score_server.reply({"error": "no more"}, 400))
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError, match="no more"):
            await it.score([PROMPT])
    assert path in score_server.paths


async def test_a_server_of_no_known_kind_is_an_error_that_has_each_address_and_its_answer(
    score_server,
):
    score_server.script(404, score_server.reply(b"<html>hello</html>"), 403, {"x": 1})
    text = await refused(score_server.url)
    url = score_server.url
    assert f"{url}/v1/models: HTTP 404; " in text
    assert f"{url}/version: the answer is not JSON but '<html>hello</html>'" in text
    assert f"{url}/server_info: HTTP 403; " in text
    assert f"{url}/model_info: unexpected answer" in text
    assert "server.scorer" in text
    assert len(score_server.requests) == 4


async def test_what_could_not_be_found_out_is_asked_for_again(score_server):
    score_server.script(404, 404, 404, 404)
    score_server.always(404)
    async with scorer(score_server.url) as it:
        for _ in range(2):
            with pytest.raises(ScorerError, match="known kind"):
                await it.score([PROMPT])
    assert len(score_server.requests) == 8


async def test_a_server_that_is_not_there_is_an_error_of_the_first_address():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        text = await refused(url, max_attempts=1)
    assert text.startswith(f"{url}/v1/models: cannot connect")
    assert "is the server running" in text
    assert "/version" not in text


async def test_a_server_that_wants_another_key_is_an_error_that_says_where_it_comes_from():
    async with VLLMImitation(key="another") as server:
        text = await refused(server.url)
    assert "MINDSCORE_API_KEY" in text
    assert server.paths == ["/v1/models"]


async def test_a_failure_that_may_pass_is_tried_again(score_server):
    again = score_server.reply(b"", 503, {"Retry-After": "0"})
    score_server.script(again, {"data": [{"id": "m", "owned_by": "sglang"}]})
    score_server.always(score_server.reply({"error": "no more"}, 400))
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError, match="no more"):
            await with_retries(lambda: it.score([PROMPT]), ServerSettings())
    assert score_server.paths == ["/v1/models", "/v1/models", "/generate"]


async def test_a_path_that_only_fails_is_passed_over(score_server):
    fails = score_server.reply({"error": "no upstream"}, 502, {"Retry-After": "0"})
    score_server.script(MODELS, fails, {"version": "0.5.23"})
    score_server.always(score_server.reply({"error": "no more"}, 400))
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError, match="no more"):
            await it.score([PROMPT])
    assert score_server.paths[-2:] == ["/server_info", "/generate"]


async def test_nothing_is_asked_for_prompts_without_ranges(score_server):
    async with scorer(score_server.url) as it:
        assert (await it.score([WirePrompt((1, 2), (), (), ())])).ranges == [[]]
        assert (await it.score([])).ranges == []
    assert score_server.requests == []


@pytest.mark.parametrize("table", [{}, {"base_url": "h:1"}, {"base_url": "http://h", "x": 1}])
def test_a_table_that_is_wrong_is_an_error_that_names_the_key(table):
    with pytest.raises(MindhooksError, match=r"^server\."):
        AutoScorer(table)


async def test_closing_before_and_after_use_and_twice_is_fine():
    async with VLLMImitation() as server, scorer(server.url) as it:
        await it.aclose()
        await it.score([PROMPT])
        await it.aclose()
