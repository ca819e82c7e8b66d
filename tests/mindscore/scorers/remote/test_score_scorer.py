"""The ``score`` scorer: the original protocol against a real server (section 5)."""

import asyncio
import base64
from contextlib import aclosing

import pytest
from aiohttp import web

from mindhooks import Generated, Image, MindhooksError, RangeScore, ScorerError, WirePrompt
from mindscore.config.settings import ServerSettings
from mindscore.measure.retry import with_retries
from mindscore.scorers.remote.score import ScoreScorer

from ...imitations import Together

SECRET = "sk-very-secret"
PROMPT = WirePrompt((5, 6, 7, 8, 9), (), ((1, 3), (4, 5)), ("a", "b"))
SCORES = {"scores": [{"total_logprob": -1.5}, {"total_logprob": -0.25}]}
SILENT = WirePrompt((5, 6, 7), (), (), ())
IMAGES = (Image("image/png", b"\x89PNG\x00"), Image("image/jpeg", b"jpeg"))


@pytest.fixture(autouse=True)
def _with_a_key(monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)


@pytest.fixture
def scorer(score_server):
    """Makes a scorer of the scripted server: ``async with scorer(priority=0) as it``."""

    def make(**settings):
        limits = {"timeout_s": 10, "deadline_s": 20, "max_attempts": 4}
        return aclosing(
            ScoreScorer({"base_url": score_server.url, "model": "m", **limits, **settings})
        )

    return make


@pytest.fixture
def refused(scorer, score_server):
    """Has a scorer asked; the text of its error: one line, with the address, without the key."""

    async def refused(path="/score", ask=lambda it: it.score([PROMPT]), **settings):
        async with scorer(**settings) as it:
            with pytest.raises(ScorerError) as caught:
                await ask(it)
        text = str(caught.value)
        assert len(text.splitlines()) == 1
        assert text.startswith(f"{score_server.url}{path}: ")
        assert SECRET not in text
        return text

    return refused


async def until_no_task_but(tasks):
    """What is cancelled ends within a few turns of the loop; what is not, waits on."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks


def continuation(it):
    return it.generate(PROMPT, max_tokens=16, stop=[7])


# score


async def test_scoring_sends_the_protocols_body_and_no_more(scorer, score_server):
    score_server.script(SCORES)

    async with scorer() as it:
        answers = (await it.score([PROMPT])).ranges

    [seen] = score_server.requests
    assert (seen.method, seen.path) == ("POST", "/score")
    assert seen.body == {
        "model": "m",
        "prompt": [5, 6, 7, 8, 9],
        "score_ranges": [[1, 3], [4, 5]],
        "logprobs": 1,
        "priority": 5,
    }
    assert answers == [[RangeScore(-1.5), RangeScore(-0.25)]]


async def test_scoring_carries_the_key_as_a_bearer(scorer, score_server):
    score_server.script(SCORES)

    async with scorer() as it:
        await it.score([PROMPT])

    assert score_server.requests[0].headers["Authorization"] == f"Bearer {SECRET}"


async def test_without_a_key_there_is_no_authorization_header(scorer, score_server, monkeypatch):
    monkeypatch.delenv("MINDSCORE_API_KEY")
    score_server.script(SCORES)

    async with scorer() as it:
        await it.score([PROMPT])

    assert "Authorization" not in score_server.requests[0].headers


async def test_images_are_sent_as_data_urls_in_order(scorer, score_server):
    score_server.script(SCORES)

    async with scorer() as it:
        await it.score([WirePrompt(PROMPT.tokens, IMAGES, PROMPT.ranges, PROMPT.node_ids)])

    body = score_server.requests[0].body
    assert list(body["multi_modal_data"]) == ["image"]
    urls = [url.partition(",") for url in body["multi_modal_data"]["image"]]
    assert [head for head, _, _ in urls] == ["data:image/png;base64", "data:image/jpeg;base64"]
    sent = [base64.b64decode(data, validate=True) for _, _, data in urls]
    assert sent == [image.data for image in IMAGES]


@pytest.mark.parametrize("priority", [0, -1, 7])
async def test_the_priority_is_sent_as_it_is(priority, scorer, score_server):
    score_server.script(SCORES)

    async with scorer(priority=priority) as it:
        await it.score([PROMPT])

    assert score_server.requests[0].body["priority"] == priority


async def test_the_model_is_the_one_of_the_settings(scorer):
    async with scorer(model="some/model") as it:
        assert it.model == "some/model"


async def test_a_prompt_without_ranges_is_no_call(scorer, score_server):
    async with scorer() as it:
        assert (await it.score([SILENT, SILENT])).ranges == [[], []]
        assert (await it.score([])).ranges == []

    assert score_server.requests == []


async def test_every_prompt_is_a_call_of_its_own_and_answers_keep_their_order(scorer, score_server):
    lengths = [7, 3, 9, 1, 5, 2]
    prompts = [WirePrompt(tuple(range(20)), (), ((1, 1 + n),), ("a",)) for n in lengths]
    prompts.insert(2, SILENT)
    answered, turn = [], asyncio.Condition()

    async def longest_first(request):
        [(start, end)] = (await request.json())["score_ranges"]
        rank = sorted(lengths, reverse=True).index(end - start)
        async with turn:
            await turn.wait_for(lambda: len(answered) == rank)
            answered.append(end - start)
            turn.notify_all()
        return await score_server.honest(request)

    score_server.always(longest_first)
    async with scorer(concurrency=6) as it:
        answers = (await it.score(prompts)).ranges

    totals = [[-7.0], [-3.0], [], [-9.0], [-1.0], [-5.0], [-2.0]]
    assert answers == [[RangeScore(total) for total in row] for row in totals]
    assert all(len(seen.body["score_ranges"]) == 1 for seen in score_server.requests)
    assert len(score_server.requests) == len(lengths)


@pytest.mark.parametrize("concurrency", [1, 2, 4])
async def test_as_many_prompts_as_the_settings_say_are_under_way(concurrency, scorer, score_server):
    together = Together(concurrency, SCORES)
    score_server.always(together)
    async with scorer(concurrency=concurrency) as it:
        await it.score([PROMPT] * (3 * concurrency))

    assert together.most == concurrency


async def test_the_bound_holds_for_all_calls_together(scorer, score_server):
    together = Together(2, SCORES)
    score_server.always(together)
    async with scorer(concurrency=2) as it:
        await asyncio.gather(*(it.score([PROMPT, PROMPT]) for _ in range(3)))

    assert together.most == 2


async def test_connections_are_used_again(scorer, score_server):
    score_server.always(score_server.honest)

    async with scorer(concurrency=2) as it:
        for _ in range(4):
            await it.score([PROMPT] * 4)

    assert len(score_server.requests) == 16
    assert len({seen.peer for seen in score_server.requests}) <= 4


async def test_a_failure_that_may_pass_is_tried_again(scorer, score_server):
    score_server.script(score_server.reply(b"", 503, {"Retry-After": "0"}), SCORES)

    async with scorer() as it:
        result = await with_retries(lambda: it.score([PROMPT]), ServerSettings())

    assert result.ranges == [[RangeScore(-1.5), RangeScore(-0.25)]]
    assert len(score_server.requests) == 2


async def test_a_prompt_that_fails_fails_the_call_and_ends_the_others(scorer, score_server):
    async def one_bad(request):
        if len((await request.json())["score_ranges"]) == 1:
            return web.json_response({"error": "too long"}, status=400)
        return await score_server.silent(request)

    score_server.always(one_bad)
    before = asyncio.all_tasks()
    async with scorer(concurrency=4) as it, asyncio.timeout(5):
        bad = WirePrompt((1, 2), (), ((1, 2),), ("a",))
        with pytest.raises(ScorerError, match="too long"):
            await it.score([PROMPT, PROMPT, bad])
        await until_no_task_but(before)


async def test_a_call_that_is_cancelled_ends_its_requests(scorer, score_server):
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def never(request):
        loop.call_soon_threadsafe(asked.set)
        return await score_server.silent(request)

    score_server.always(never)
    before = asyncio.all_tasks()
    async with scorer(concurrency=2) as it:
        task = asyncio.create_task(it.score([PROMPT] * 5))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_no_task_but(before)

    assert len(score_server.requests) <= 2


async def test_a_prompt_of_300000_tokens_arrives_whole(scorer, score_server):
    tokens = tuple(range(300_000))
    ranges = tuple((start, start + 100) for start in range(1000, 299_000, 1000))
    score_server.always(score_server.honest)

    async with scorer() as it:
        answers = (
            await it.score(
                [WirePrompt(tokens, (), ranges, tuple(str(start) for start, _ in ranges))]
            )
        ).ranges

    assert answers == [[RangeScore(-100.0)] * len(ranges)]
    assert score_server.requests[0].body["prompt"] == list(tokens)


@pytest.mark.parametrize("rounding", [0.0, 1e-9, 1e-4])
async def test_a_total_that_is_0_within_rounding_is_taken(rounding, scorer, score_server):
    prompt = WirePrompt((1, 2), (), ((1, 2),), ("a",))
    score_server.script({"scores": [{"total_logprob": rounding}]})

    async with scorer() as it:
        assert (await it.score([prompt])).ranges == [[RangeScore(rounding)]]


async def test_an_integer_serves_as_a_total(scorer, score_server):
    score_server.script({"scores": [{"total_logprob": -1}, {"total_logprob": 0}]})

    async with scorer() as it:
        assert (await it.score([PROMPT])).ranges == [[RangeScore(-1.0), RangeScore(0.0)]]


async def test_what_an_answer_holds_besides_is_ignored(scorer, score_server):
    scores = [{**score, "logprobs": [-1.0], "index": 0} for score in SCORES["scores"]]
    score_server.script({"scores": scores, "model": "m", "usage": {"total_tokens": 5}})

    async with scorer() as it:
        assert (await it.score([PROMPT])).ranges == [[RangeScore(-1.5), RangeScore(-0.25)]]


# Answers that score refuses.


@pytest.mark.parametrize("count", [0, 1, 3, 100])
async def test_another_number_of_scores_than_asked_is_an_error(count, refused, score_server):
    score_server.always({"scores": [{"total_logprob": -1.0}] * count})

    text = await refused()

    assert "scores: asked for 2" in text
    assert f"got {count};" in text
    assert len(score_server.requests) == 1


@pytest.mark.parametrize("total", [0.5, 1, 1e300])
async def test_a_total_above_0_is_an_error_that_names_it(total, refused, score_server):
    score_server.always({"scores": [{"total_logprob": -1.0}, {"total_logprob": total}]})

    text = await refused()

    assert "scores[1].total_logprob: " in text
    assert str(float(total)) in text
    assert "log-probabilities" in text


@pytest.mark.parametrize("total", [b"NaN", b"Infinity", b"-Infinity"])
async def test_a_total_that_is_no_number_is_an_error(total, refused, score_server):
    body = b'{"scores": [{"total_logprob": -1.0}, {"total_logprob": ' + total + b"}]}"
    score_server.always(score_server.reply(body))

    assert "number format" in await refused()


@pytest.mark.parametrize("total", [b"null", b'"-1.0"', b'"NaN"', b"true", b"[-1.0]", b"{}"])
async def test_a_total_of_another_type_is_an_error_that_names_the_field(
    total, refused, score_server
):
    body = b'{"scores": [{"total_logprob": -1.0}, {"total_logprob": ' + total + b"}]}"
    score_server.always(score_server.reply(body))

    text = await refused()

    assert "scores[1].total_logprob" in text
    assert "server.scorer" in text


@pytest.mark.parametrize("total", [b"-1e999", b"1e999"])
async def test_a_total_out_of_range_is_an_error_that_names_the_field(total, refused, score_server):
    body = b'{"scores": [{"total_logprob": -1.0}, {"total_logprob": ' + total + b"}]}"
    score_server.always(score_server.reply(body))

    text = await refused()

    assert "scores[1].total_logprob" in text
    assert "number format" in text


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        ({}, "scores"),
        ({"scores": None}, "scores"),
        ({"scores": {}}, "scores"),
        ({"scores": [None, None]}, "scores[0]"),
        ({"scores": [-1.0, -2.0]}, "scores[0]"),
        ({"scores": [{}, {}]}, "total_logprob"),
        ({"choices": [{"text": ""}]}, "scores"),
    ],
)
async def test_an_answer_of_another_shape_is_an_error_that_names_the_field(
    answer, field, refused, score_server
):
    score_server.always(answer)

    text = await refused()

    assert field in text
    assert "server.scorer" in text


async def test_an_error_in_an_answer_that_is_ok_is_an_error(refused, score_server):
    score_server.always({"error": "the model is not loaded", **SCORES})

    assert "the model is not loaded" in await refused()


@pytest.mark.parametrize("body", [b"", b"<html>\n<p>Welcome</p>\n", b'{"scores": [{"total'])
async def test_an_answer_that_is_not_json_is_an_error(body, refused, score_server):
    score_server.always(score_server.reply(body))

    text = await refused()

    assert "JSON" in text
    assert "server.base_url" in text


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_refusal_fails_at_once_and_says_what_the_server_said(status, refused, score_server):
    score_server.always(score_server.reply({"error": {"message": "the\nreason"}}, status))

    text = await refused()

    assert str(status) in text
    assert "the reason" in text
    assert len(score_server.requests) == 1


async def test_a_server_that_is_gone_is_an_error_of_one_attempt(refused, score_server):
    score_server.always(score_server.raw(b""))

    await refused(max_attempts=2)

    assert len(score_server.requests) == 1


# generate


async def test_generating_asks_for_completions_with_token_ids(scorer, score_server):
    score_server.script({"choices": [{"text": " yes", "token_ids": [3, 7]}]})

    async with scorer() as it:
        said = await it.generate(PROMPT, max_tokens=16, stop=[7, 8])

    [seen] = score_server.requests
    assert (seen.method, seen.path) == ("POST", "/completions")
    assert seen.headers["Authorization"] == f"Bearer {SECRET}"
    assert seen.body == {
        "model": "m",
        "prompt": [5, 6, 7, 8, 9],
        "max_tokens": 16,
        "temperature": 0,
        "stop_token_ids": [7, 8],
        "return_token_ids": True,
        "priority": 5,
    }
    assert said == Generated((3, 7), " yes")


@pytest.mark.parametrize("choice", [{"text": "yes"}, {"text": "yes", "token_ids": None}])
async def test_a_server_that_returns_text_only_gives_no_ids(choice, scorer, score_server):
    score_server.script({"choices": [choice]})

    async with scorer() as it:
        assert await continuation(it) == Generated(None, "yes")


async def test_generating_sends_images_too(scorer, score_server):
    score_server.script({"choices": [{"text": "yes"}]})

    async with scorer() as it:
        prompt = WirePrompt((1, 2), IMAGES[:1], (), ())
        await it.generate(prompt, max_tokens=1, stop=())

    body = score_server.requests[0].body
    assert body["multi_modal_data"] == {"image": ["data:image/png;base64,iVBORwA="]}
    assert body["stop_token_ids"] == []


async def test_only_the_first_choice_counts(scorer, score_server):
    score_server.script({"choices": [{"text": "one", "index": 0}, {"text": "two"}], "id": "x"})

    async with scorer() as it:
        assert (await continuation(it)).text == "one"


async def test_an_answer_without_a_choice_is_an_error_that_says_what_to_do(refused, score_server):
    score_server.always({"choices": []})

    text = await refused("/completions", continuation)

    assert "choices" in text
    # Whatever the words are, the bare fact is not all.
    assert not text.endswith("choices: is empty")


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        ({}, "choices"),
        ({"choices": None}, "choices"),
        ({"choices": [{}]}, "text"),
        ({"choices": [{"text": None}]}, "choices[0].text"),
        ({"choices": [{"text": "a", "token_ids": ["7"]}]}, "choices[0].token_ids"),
        ({"choices": [{"text": "a", "token_ids": [1.5]}]}, "choices[0].token_ids"),
        ({"choices": [{"text": "a", "token_ids": [None]}]}, "choices[0].token_ids"),
    ],
)
async def test_a_completion_of_another_shape_is_an_error_that_names_the_field(
    answer, field, refused, score_server
):
    score_server.always(answer)

    assert field in await refused("/completions", continuation)


async def test_a_failed_completion_is_an_error(refused, score_server):
    score_server.always(score_server.reply({"error": "no such route"}, 404))

    assert "no such route" in await refused("/completions", continuation)


# tokenize


async def test_tokenising_is_the_tokenizer_files(scorer, score_server, tokenizer_file):
    async with scorer(tokenizer=str(tokenizer_file)) as it:
        header = await it.tokenize("<|im_start|>user\n")
        text = await it.tokenize("the answer")

    assert header[0] == 0
    assert 0 not in text
    assert len(text) > 1
    assert score_server.requests == []


async def test_without_a_tokenizer_file_a_server_that_tokenises_is_asked(scorer, score_server):
    score_server.script({"count": 2, "tokens": [5, 6]})

    async with scorer() as it:
        assert await it.tokenize("text") == [5, 6]

    [request] = score_server.requests
    assert (request.path, request.body) == (
        "/tokenize",
        {"model": "m", "prompt": "text", "add_special_tokens": False},
    )


async def test_where_nobody_tokenises_the_error_names_the_setting(scorer, score_server):
    score_server.script(score_server.reply(b"", status=404))

    async with scorer() as it:
        with pytest.raises(ScorerError) as caught:
            await it.tokenize("text")

    text = str(caught.value)
    assert "server.tokenizer" in text
    assert "tokenizer.json" in text
    assert len(text.splitlines()) == 1


async def test_a_tokenizer_file_that_is_missing_is_an_error_of_tokenising_alone(
    scorer, score_server, tmp_path
):
    score_server.script(SCORES)

    async with scorer(tokenizer=str(tmp_path / "missing.json")) as it:
        with pytest.raises(ScorerError, match=r"server\.tokenizer"):
            await it.tokenize("text")
        assert (await it.score([PROMPT])).ranges == [[RangeScore(-1.5), RangeScore(-0.25)]]


# How it is made and closed.


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"base_url": "http://h", "modle": "m"}, "server.modle"),
        ({"base_url": "http://h", "timeout_s": 0}, "server.timeout_s"),
        ({"base_url": "h:8000"}, "server.base_url"),
        ({}, "server.base_url"),
        ({"base_url": "http://h", "api_key_file": "/no/such/file"}, "server.api_key_file"),
    ],
)
def test_a_table_that_is_wrong_is_an_error_that_names_the_key(table, expected):
    with pytest.raises(MindhooksError) as caught:
        ScoreScorer(table)

    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


async def test_closing_twice_is_fine(scorer, score_server):
    score_server.script(SCORES)

    async with scorer() as it:
        await it.score([PROMPT])
        await it.aclose()
        await it.aclose()


async def test_a_server_that_says_what_it_had_cached_says_what_it_computed(scorer, score_server):
    usage = {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    score_server.script({**SCORES, "usage": usage}, {**SCORES, "usage": usage}, SCORES)

    async with scorer() as it:
        both = await it.score([PROMPT, PROMPT])
        silent = await it.score([PROMPT])

    assert both.computed_tokens == 2
    assert silent.computed_tokens is None


@pytest.mark.parametrize("id_", [2**31, 2**63, 10**30, -1])
async def test_an_id_of_an_alternate_that_is_none_is_an_error_that_names_it(
    id_, refused, score_server
):
    score_server.always({"choices": [{"text": "tea", "token_ids": [5, id_]}]})

    assert "choices[0].token_ids[1]" in await refused("/completions", continuation)


async def test_an_alternate_whose_ids_are_empty_is_an_error_that_names_them(refused, score_server):
    score_server.always({"choices": [{"text": "tea", "token_ids": []}]})

    assert "choices[0].token_ids: is empty" in await refused("/completions", continuation)


async def test_more_scores_than_ranges_are_not_all_read(refused, score_server):
    score = b'{"total_logprob":-1},'
    many = b'{"scores":[%b{"total_logprob":-1}]}' % (score * (2**21 // len(score)))
    score_server.always(score_server.reply(many))
    prompt = WirePrompt(tuple(range(10_000)), (), ((1, 3),), ("a",))

    assert "scores: expected 1 entries, got more" in await refused(
        ask=lambda it: it.score([prompt])
    )
