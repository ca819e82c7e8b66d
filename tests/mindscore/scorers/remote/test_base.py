"""What holds of every scorer of a stock server: the toy's numbers, through real HTTP."""

import asyncio
import shutil
from contextlib import aclosing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindhooks import Image, MindhooksError, Role, ScorerError, WirePrompt
from mindscore.conversation import Message
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.own_template import OwnTemplate
from mindscore.scorers.remote.base import address
from mindscore.scorers.remote.openai import OpenAIScorer
from mindscore.scorers.remote.score import ScoreScorer
from mindscore.scorers.remote.sglang import SGLangScorer
from mindscore.scorers.remote.vllm import VLLMScorer
from mindscore.scorers.toy import ToyScorer

from ...imitations import OpenAIImitation, SGLangImitation, VLLMImitation

SECRET = "sk-very-secret"
PROMPT = WirePrompt((5, 6, 5, 5, 9, 5, 6), (), ((1, 3), (4, 6)), ("a", "b"))
SILENT = WirePrompt((5, 6, 7), (), (), ())
LIMITS = {"timeout_s": 10, "deadline_s": 20, "max_attempts": 2}

KINDS = {
    "vllm": (VLLMScorer, VLLMImitation, {"version": "0.31.0"}),
    "vllm rows": (VLLMScorer, VLLMImitation, {"generate": "on"}),
    "vllm fallen back": (VLLMScorer, VLLMImitation, {"generate": "off"}),
    "sglang": (SGLangScorer, SGLangImitation, {}),
    "openai": (OpenAIScorer, OpenAIImitation, {"tokenizes": True}),
    "openai ids": (OpenAIScorer, OpenAIImitation, {"token_ids": True, "tokenizes": True}),
    "openai on vllm": (OpenAIScorer, VLLMImitation, {}),
}
SAYS_IDS = ["vllm", "sglang", "openai ids"]


class Pair:
    """A server and the scorer for it: ``with Pair("vllm", fault="nan") as it``."""

    def __init__(self, kind, *, base_path="", server=None, **settings):
        self._scorer, imitation, options = KINDS[kind]
        self.server = imitation(**options, **(server or {}))
        self._base_path = base_path
        self._settings = settings

    async def __aenter__(self):
        await self.server.__aenter__()
        url = self.server.url + self._base_path
        self.scorer = self._scorer({"base_url": url, "model": "m", **LIMITS, **self._settings})
        return self

    async def __aexit__(self, *_):
        await self.scorer.aclose()
        await self.server.__aexit__()

    async def until(self, holds):
        """Wait until it holds of the server, which has a thread of its own."""
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def asked(self, requests):
        """Wait until so many posts have come in."""
        await self.until(lambda: len(self.posts) >= requests)

    @property
    def posts(self):
        return [it for it in self.server.requests if it.method == "POST"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(autouse=True)
def _with_a_key(monkeypatch):
    monkeypatch.setenv("MINDSCORE_API_KEY", SECRET)


async def refused(kind, fault, prompt=PROMPT):
    """The text of the error that a fault comes to."""
    async with Pair(kind, server={"fault": fault}) as it:
        with pytest.raises(ScorerError) as caught:
            await it.scorer.score([prompt])
        url = it.server.url
    text = str(caught.value)
    assert text.startswith(f"{url}/")
    assert len(text.splitlines()) == 1
    return text.removeprefix(url)


def totals(answers):
    return [[score.total for score in answer] for answer in answers]


async def toys(prompts):
    return [
        pytest.approx(row, abs=1e-5) for row in totals((await ToyScorer().score(prompts)).ranges)
    ]


@st.composite
def _prompts(draw):
    ids = draw(st.lists(st.integers(1, 9), min_size=2, max_size=12))
    cuts = draw(st.lists(st.integers(1, len(ids)), max_size=6, unique=True).map(sorted))
    ranges = tuple(zip(cuts[::2], cuts[1::2], strict=False))
    return WirePrompt(tuple(ids), (), ranges, tuple(str(it) for it in ranges))


# The numbers.


@given(prompts=st.lists(_prompts(), max_size=12))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_prompts_totals_are_the_toys(kind, prompts):
    async def check():
        async with Pair(kind, concurrency=2) as it:
            answers = (await it.scorer.score(prompts)).ranges
            assert totals(answers) == await toys(prompts)
            for answer, prompt in zip(answers, prompts, strict=True):
                lengths = [end - start for start, end in prompt.ranges]
                assert [len(score.values) for score in answer] == lengths
                sums = [pytest.approx(sum(score.values)) for score in answer]
                assert [score.total for score in answer] == sums

    asyncio.run(check())


async def test_a_prompt_without_ranges_is_not_sent(kind):
    async with Pair(kind) as it:
        assert (await it.scorer.score([SILENT, SILENT])).ranges == [[], []]
        assert (await it.scorer.score([])).ranges == []
        assert it.server.requests == []


async def test_what_comes_after_the_last_range_is_not_sent(kind):
    async with Pair(kind) as it:
        longer = WirePrompt((*PROMPT.tokens, 3, 4, 8), (), PROMPT.ranges, PROMPT.node_ids)
        assert totals((await it.scorer.score([longer])).ranges) == await toys([PROMPT])
        # A salt may have any figures.
        sent = [str({**request.body, "cache_salt": ""}) for request in it.posts]
        assert all("5, 6, 5, 5, 9, 5]" in body and "8" not in body for body in sent)


@pytest.mark.parametrize("base_path", ["", "/", "/v1", "/v1/"])
async def test_the_base_url_may_end_in_v1_or_not(base_path, kind):
    async with Pair(kind, base_path=base_path) as it:
        assert totals((await it.scorer.score([PROMPT])).ranges) == await toys([PROMPT])
        if kind != "openai ids":
            assert len(await it.scorer.tokenize("a b")) == 2
        assert (await it.scorer.generate(PROMPT, max_tokens=1, stop=[])).text


async def test_every_request_carries_the_key(kind):
    async with Pair(kind, server={"key": SECRET}) as it:
        await it.scorer.score([PROMPT])
        await it.scorer.generate(PROMPT, max_tokens=1, stop=[])
        await it.scorer.tokenize("a")
        keys = {request.headers.get("Authorization") for request in it.server.requests}
    assert keys == {f"Bearer {SECRET}"}


async def test_a_key_that_is_wrong_is_an_error_that_says_where_it_comes_from(kind):
    async with Pair(kind, server={"key": "another"}) as it:
        with pytest.raises(ScorerError) as caught:
            await it.scorer.score([PROMPT] * 3)
    assert "MINDSCORE_API_KEY" in str(caught.value)
    assert SECRET not in str(caught.value)


# Generating, tokenising.


async def test_it_generates_as_the_model_does(kind):
    said = await ToyScorer().generate(PROMPT, max_tokens=3, stop=[])
    async with Pair(kind) as it:
        assert await it.scorer.generate(PROMPT, max_tokens=3, stop=[]) == said


async def test_it_generates_to_a_stop_token(kind):
    async with Pair(kind) as it:
        said = await it.scorer.generate(PROMPT, max_tokens=3, stop=[5])
    assert said.token_ids == (5,)
    assert said.text == ""


async def test_it_tokenises_as_the_server_does_and_adds_no_special_tokens(kind):
    async with Pair(kind) as it:
        ids = await it.scorer.tokenize("the cat <|im_end|>")
        [request] = it.posts
    assert ids == await ToyScorer().tokenize("the cat <|im_end|>")
    assert request.path == "/tokenize"
    assert request.body["add_special_tokens"] is False


async def test_a_tokenizer_file_wins_over_the_server(kind, tokenizer_file):
    async with Pair(kind, tokenizer=str(tokenizer_file)) as it:
        assert (await it.scorer.tokenize("<|im_start|>user"))[0] == 0
        assert it.server.requests == []


# What it refuses.


@pytest.mark.parametrize("fault", ["omit", "nan", "clamp", "logits", "truncate"])
async def test_a_fault_that_shows_is_an_error_that_names_address_and_field(fault, kind):
    text = await refused(kind, fault)
    expected = {
        "omit": "log-prob",
        "nan": "number format",
        "clamp": "minus infinity",
        "logits": "logits",
        "truncate": "cut",
    }
    # SGLang writes null for what is no number.
    assert expected["omit" if (kind, fault) == ("sglang", "nan") else fault] in text


@pytest.mark.parametrize("kind", SAYS_IDS)
async def test_values_of_other_tokens_are_an_error_that_names_the_position(kind):
    text = await refused(kind, "wrong-ids")
    assert "is of token" in text
    assert "logprobs[" in text


async def test_images_are_refused_before_anything_is_sent(kind):
    image = (Image("image/png", b"png"),)
    prompt = WirePrompt(PROMPT.tokens, image, PROMPT.ranges, PROMPT.node_ids)
    async with Pair(kind) as it:
        with pytest.raises(ScorerError, match="images"):
            await it.scorer.score([prompt])
        with pytest.raises(ScorerError, match="images"):
            await it.scorer.generate(prompt, max_tokens=1, stop=[])
        assert it.server.requests == []


async def test_one_prompt_that_is_too_long_fails_alone(kind):
    long = WirePrompt((*PROMPT.tokens, *[1] * 20), (), ((20, 25),), ("c",))
    async with Pair(kind, concurrency=1, server={"max_model_len": 20}) as it:
        calls = [it.scorer.score([prompt]) for prompt in (PROMPT, long, PROMPT)]
        first, bad, last = await asyncio.gather(*calls, return_exceptions=True)
    assert [totals(first.ranges), totals(last.ranges)] == [await toys([PROMPT])] * 2
    assert isinstance(bad, ScorerError)
    assert "maximum context length" in str(bad)


async def test_a_server_that_is_gone_is_an_error_that_says_so(kind):
    async with Pair(kind, max_attempts=1) as it:
        await it.server.__aexit__()
        with pytest.raises(ScorerError, match="is the server running"):
            await it.scorer.score([PROMPT])
        await it.server.__aenter__()


# Requests.


async def test_each_prompt_has_a_request_of_its_own(kind):
    prompts = [WirePrompt((1, 2, 3, n), (), ((2, 4),), ("a",)) for n in range(8)]
    async with Pair(kind, concurrency=2) as it:
        await it.scorer.score(prompts[:1])
        before = len(it.posts)
        answers = await it.scorer.score(prompts)
        posts = it.posts[before:]
    assert totals(answers.ranges) == await toys(prompts)
    # Where the rows are refused, each prompt may be asked for twice while that is not known.
    assert len(posts) == 8


async def test_no_more_requests_than_the_settings_say_are_under_way(kind):
    prompts = [WirePrompt((1, 2, 3, n), (), ((2, 4),), ("a",)) for n in range(9)]
    async with Pair(kind, concurrency=2, server={"delay_s": 0.02}) as it:
        await asyncio.gather(it.scorer.score(prompts), it.scorer.score(prompts[:3]))
        assert it.server.most_under_way <= 2


async def test_a_call_that_is_cancelled_ends_its_requests(kind):
    before = asyncio.all_tasks()
    async with Pair(kind, concurrency=2) as it:
        # Some learn by their first prompt what they speak to.
        await it.scorer.score([PROMPT])
        known = len(it.posts)
        it.server.delay_s = 60
        task = asyncio.create_task(it.scorer.score([PROMPT] * 5))
        await it.asked(known + 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await it.until(lambda: it.server.abandoned == 2)
        assert asyncio.all_tasks() == before


async def test_cancelling_one_call_leaves_the_others(kind):
    async with Pair(kind, concurrency=1, server={"delay_s": 0.05}) as it:
        tasks = [asyncio.create_task(it.scorer.score([PROMPT])) for _ in range(3)]
        await it.asked(1)
        tasks[1].cancel()
        kept = await asyncio.gather(tasks[0], tasks[2])
    assert [totals(answer.ranges) for answer in kept] == [await toys([PROMPT])] * 2


async def test_closing_ends_what_is_under_way(kind):
    before = asyncio.all_tasks()
    async with Pair(kind, server={"delay_s": 60}) as it:
        task = asyncio.create_task(it.scorer.score([PROMPT]))
        await it.asked(1)
        await it.scorer.aclose()
        with pytest.raises(ScorerError):
            await task
        assert asyncio.all_tasks() == before
        await it.scorer.aclose()


# How it is made.


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"base_url": "http://h"}, "https"),
        ({"base_url": "http://h", "modle": "m"}, "server.modle"),
        ({"base_url": "h:8000"}, "'h:8000'"),
        ({"base_url": "/v1"}, "'/v1'"),
        ({}, "server.base_url"),
        ({"base_url": "http://h", "api_key_file": "/no/such/file"}, "server.api_key_file"),
    ],
)
def test_a_table_that_is_wrong_is_an_error_that_names_the_key(table, expected, kind):
    with pytest.raises(MindhooksError) as caught:
        KINDS[kind][0](table)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


async def test_what_flows_ask_of_it(kind):
    reuses = {"vllm": None, "sglang": True, "openai": None}
    async with aclosing(KINDS[kind][0]({"base_url": "https://h", "model": "some/model"})) as it:
        assert it.model == "some/model"
        assert it.noisy is True
        assert it.reuses_prefixes is reuses[kind.split()[0]]


@pytest.mark.parametrize(
    ("base_url", "root", "api"),
    [
        ("http://h:1", "http://h:1", "/v1"),
        ("http://h:1/", "http://h:1", "/v1"),
        ("http://h/v1/", "http://h", "/v1"),
        ("https://h/inference/v1", "https://h/inference", "/v1"),
        ("https://h/openai", "https://h/openai", ""),
    ],
)
def test_an_address_has_a_root_and_an_openai_style_part(base_url, root, api):
    assert address(base_url) == (root, api)


@pytest.mark.parametrize("scorer", [VLLMScorer, SGLangScorer, OpenAIScorer])
async def test_a_server_is_sent_no_marker_of_an_image_that_is_left_out(
    scorer, tokenizer_file, tmp_path
):
    shutil.copy(tokenizer_file, tmp_path / "tokenizer.json")
    (tmp_path / "chat_template.jinja").write_text(
        "{% for it in messages %}{% for part in it.content %}"
        "{% if part.type == 'image' %}<img>{% else %}{{ part.text }}{% endif %}"
        "{% endfor %}<end>{% endfor %}{% if add_generation_prompt %}{% endif %}"
    )
    shown = Message(Role.USER, "Look.", images=(Image("image/png", b""),), id="u")
    said = Message(Role.ASSISTANT, "Oak.", id="a")
    table = {"base_url": "http://127.0.0.1:9", "model": "m", "tokenizer": str(tmp_path)}
    async with aclosing(scorer(table)) as it:
        template = OwnTemplate(it.render_chat)
        context = (
            await Transcript("f", (), (), (shown, said))
            .without_images()
            .context(it.tokenize, template)
        )
        prompt = context.wire_prompt(range(2), lambda _: False)
        assert (await it.detokenize(prompt.tokens)) == "[image]\nLook.<end>Oak.<end>"
        assert template.markers == {Role.USER: "[image]"}


@pytest.mark.parametrize(
    ("answer", "listed"),
    [
        ({"data": [{"id": "a"}, {"id": "b", "root": "/b"}]}, ("a", "b")),
        ({"data": []}, ()),
        ({"models": 1}, ()),
        (404, ()),
    ],
)
@pytest.mark.parametrize("kind", [OpenAIScorer, ScoreScorer])
async def test_the_models_that_a_server_lists(kind, answer, listed, score_server):
    score_server.always(answer)
    async with aclosing(kind({"base_url": f"{score_server.url}/v1", "model": "m"})) as scorer:
        assert await scorer.served_models() == listed
    assert {it.path for it in score_server.requests} == {"/v1/models"}
