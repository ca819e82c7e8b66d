"""The ``openai`` scorer: echoed prompts of any OpenAI-style server."""

from contextlib import aclosing

import pytest

from mindhooks import ScorerError, WirePrompt
from mindscore.scorers.remote.openai import OpenAIScorer
from mindscore.scorers.toy import ToyScorer

from ...imitations import OpenAIImitation

PROMPT = WirePrompt((5, 6, 5, 5, 9, 5), (), ((2, 3), (4, 6)), ("a", "b"))
OTHER = WirePrompt((5, 6, 7), (), ((1, 3),), ("a",))


def scorer(url, **settings):
    """A scorer of the server at ``url``, one request at a time."""
    limits = {"timeout_s": 10, "deadline_s": 20, "max_attempts": 2, "concurrency": 1}
    return aclosing(OpenAIScorer({"base_url": url, "model": "m", **limits, **settings}))


def echo(logprobs, **fields):
    return {"choices": [{"index": 0, "text": "", "logprobs": logprobs, **fields}]}


async def refused(score_server, answer):
    """The text of the error that an answer for ``OTHER`` comes to."""
    score_server.always(answer)
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError) as caught:
            await it.score([OTHER])
    text = str(caught.value)
    assert text.startswith(f"{score_server.url}/v1/completions: ")
    return text


async def test_a_prompt_goes_to_be_echoed_without_what_the_protocol_does_not_have():
    async with OpenAIImitation() as server, scorer(server.url) as it:
        await it.score([PROMPT])
    [asked] = server.requests
    assert (asked.method, asked.path) == ("POST", "/v1/completions")
    assert asked.body == {
        "model": "m",
        "prompt": [5, 6, 5, 5, 9, 5],
        "max_tokens": 1,
        "temperature": 0,
        "echo": True,
        "logprobs": 1,
    }


@pytest.mark.parametrize("generated", [True, False])
async def test_the_entry_of_the_generated_token_may_be_there_or_not(generated):
    async with OpenAIImitation(generated=generated) as server, scorer(server.url) as it:
        [answer] = (await it.score([PROMPT])).ranges
    [toys] = (await ToyScorer().score([PROMPT])).ranges
    assert [it.total for it in answer] == [pytest.approx(it.total, abs=1e-9) for it in toys]


async def test_how_much_was_computed_is_known_only_where_usage_says_what_was_cached():
    async with OpenAIImitation() as server, scorer(server.url) as it:
        assert (await it.score([PROMPT, OTHER])).computed_tokens is None
    async with OpenAIImitation(cached=2) as server, scorer(server.url) as it:
        assert (await it.score([PROMPT, OTHER])).computed_tokens == 5


async def test_an_address_with_another_path_is_taken_as_it_is(score_server):
    score_server.script(echo({"token_logprobs": [None, -1.0, -2.0]}))
    score_server.always({"tokens": [1]})
    async with scorer(score_server.url + "/openai/") as it:
        [[score]] = (await it.score([OTHER])).ranges
        await it.tokenize("a")
    assert score.values == (-1.0, -2.0)
    assert score_server.paths == ["/openai/completions", "/openai/tokenize"]


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"token_logprobs": None},
        {"token_logprobs": []},
        {"token_logprobs": [None, None, None, -0.5]},
        {"content": [{"token": "a", "logprob": -1.0}]},
    ],
)
async def test_a_server_without_log_probabilities_of_the_prompt_is_told_apart(
    logprobs, score_server
):
    text = await refused(score_server, echo(logprobs))
    assert "does not return log-probabilities of the prompt" in text
    assert "llama-server" in text


@pytest.mark.parametrize(
    ("logprobs", "says"),
    [
        ({"token_logprobs": [None, -1.0]}, "expected 3 entries, got 2"),
        ({"token_logprobs": [None, *[-1.0] * 4]}, "expected 3 entries, got 5"),
        ({"token_logprobs": [None, -1.0, None]}, "token_logprobs[2]: is null"),
        ({"token_logprobs": [None, -1.0, 0.5]}, "token_logprobs[2]: 0.5 is above 0"),
        ({"token_logprobs": [None, -1.0, -9999.0]}, "token_logprobs[2]: -9999.0 stands for"),
        (
            {"token_logprobs": [None, -1.0, -1.0], "token_ids": [5, 6, 8]},
            "token_logprobs[2]: is of token 8",
        ),
        (
            {
                "token_logprobs": [None, -1.0, -1.0],
                "tokens": ["token_id:5", "token_id:8", "token_id:7"],
            },
            "token_logprobs[1]: is of token 8",
        ),
    ],
)
async def test_values_that_do_not_fit_are_an_error_that_names_the_position(
    logprobs, says, score_server
):
    text = await refused(score_server, echo(logprobs))
    assert "choices[0].logprobs.token_logprobs" in text
    assert says in text


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_token_ids": [5, 6, 7]},
        {"logprobs": {"token_ids": [5, 6, 7, 8]}},
        {"logprobs": {"tokens": ["token_id:5", "token_id:6", "token_id:7", "token_id:8"]}},
        {"logprobs": {"tokens": ["token_id:5", "b", "c", "d"]}},
    ],
)
async def test_ids_that_are_the_prompts_own_are_fine(fields, score_server):
    logprobs = {"token_logprobs": [None, -1.0, -1.0, -0.5], **fields.get("logprobs", {})}
    score_server.always(echo(logprobs, **{k: v for k, v in fields.items() if k != "logprobs"}))
    async with scorer(score_server.url) as it:
        [[score]] = (await it.score([OTHER])).ranges
    assert score.total == -2.0


async def test_other_ids_of_the_prompt_are_an_error(score_server):
    answer = echo({"token_logprobs": [None, -1.0, -1.0]}, prompt_token_ids=[1, 5, 6])
    assert "is of token 1, not of the prompt's token 5" in await refused(score_server, answer)


@pytest.mark.parametrize("read", [2, 4])
async def test_a_server_that_read_more_or_less_than_was_sent_is_an_error(read, score_server):
    answer = echo({"token_logprobs": [None, -1.0, -1.0]})
    text = await refused(score_server, {**answer, "usage": {"prompt_tokens": read}})
    assert f"usage.prompt_tokens: {read} for 3 tokens" in text


async def test_a_server_that_does_not_tokenise_is_an_error_that_names_the_setting():
    async with OpenAIImitation() as server, scorer(server.url) as it:
        with pytest.raises(ScorerError) as caught:
            await it.tokenize("text")
    assert "server.tokenizer" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


async def test_a_server_that_fails_to_tokenise_is_not_told_from_settings(score_server):
    score_server.always(score_server.reply(b"", 503, {"Retry-After": "0"}))
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError) as caught:
            await it.tokenize("text")
    assert "503" in str(caught.value)
    assert "server.tokenizer" not in str(caught.value)


async def test_text_to_tokenise_is_sent_under_both_names_that_servers_have_for_it():
    async with OpenAIImitation(tokenizes=True) as server, scorer(server.url) as it:
        assert len(await it.tokenize("a cat")) == 2
    [asked] = server.requests
    assert (asked.body["prompt"], asked.body["content"]) == ("a cat", "a cat")


async def test_a_tokenizer_file_that_is_missing_is_an_error_of_that_file(tmp_path):
    async with scorer("http://h", tokenizer=str(tmp_path / "missing.json")) as it:
        with pytest.raises(ScorerError, match=r"^server\.tokenizer: "):
            await it.tokenize("text")


async def test_generating_sends_no_priority_either():
    async with OpenAIImitation() as server, scorer(server.url) as it:
        await it.generate(OTHER, max_tokens=2, stop=[7])
    [asked] = server.requests
    assert asked.body == {
        "model": "m",
        "prompt": [5, 6, 7],
        "max_tokens": 2,
        "temperature": 0,
        "stop_token_ids": [7],
        "return_token_ids": True,
    }


def far_too_many(entry):
    return b"[%b]" % b",".join([entry] * (2**22 // len(entry)))


@pytest.mark.parametrize(
    ("name", "entry"),
    [("token_logprobs", b"null"), ("token_ids", b"7"), ("tokens", b'"a"')],
)
async def test_an_array_far_longer_than_asked_is_not_all_read(
    name, entry, score_server, monkeypatch
):
    monkeypatch.setattr("mindscore.scorers.remote.openai.room_for", lambda _: 2**25)
    values = b"" if name == "token_logprobs" else b'"token_logprobs":[null,-1,-1],'
    logprobs = b'{%b"%b":%b}' % (values, name.encode(), far_too_many(entry))
    answer = b'{"choices":[{"index":0,"logprobs":%b}]}' % logprobs
    text = await refused(score_server, score_server.reply(answer))
    assert f"choices[0].logprobs.{name}: expected 4 entries, got more" in text


async def test_far_more_ids_of_the_prompt_than_it_has_are_not_all_read(score_server, monkeypatch):
    monkeypatch.setattr("mindscore.scorers.remote.openai.room_for", lambda _: 2**25)
    ids = far_too_many(b"7")
    logprobs = b'"logprobs":{"token_logprobs":[null,-1,-1]}'
    answer = b'{"choices":[{"index":0,%b,"prompt_token_ids":%b}]}' % (logprobs, ids)
    text = await refused(score_server, score_server.reply(answer))
    assert "choices[0].prompt_token_ids: expected 4 entries, got more" in text


async def test_a_continuation_far_longer_than_asked_is_not_all_read(score_server, monkeypatch):
    monkeypatch.setattr("mindscore.scorers.remote.base.room_for", lambda _: 2**25)
    answer = b'{"choices":[{"text":"a","token_ids":%b}]}' % far_too_many(b"7")
    score_server.always(score_server.reply(answer))
    async with scorer(score_server.url) as it:
        with pytest.raises(ScorerError, match=r"choices\[0\].token_ids: expected 5 entries, got"):
            await it.generate(OTHER, max_tokens=5, stop=[])


async def test_a_long_answer_is_read_in_pieces_as_it_is_read_whole(score_server):
    tokens = tuple(range(5, 120_005))
    prompt = WirePrompt(tokens, (), ((1, 4), (119_990, 120_000)), ("a", "b"))
    values = [None, *(-token / 1e6 for token in tokens[1:])]
    names = [f"token_id:{token}" for token in tokens]
    score_server.always(echo({"token_logprobs": values, "tokens": names}))
    async with scorer(score_server.url) as it:
        [found] = (await it.score([prompt])).ranges
    assert [it.values for it in found] == [tuple(values[1:4]), tuple(values[-10:])]
