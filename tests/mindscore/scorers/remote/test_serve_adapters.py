"""The real model, served: every scorer that speaks to servers says what ``local`` says."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mindhooks import Registry, Scorer, WirePrompt
from mindhooks.testing import StubMind
from mindscore.http.runner import listen
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.scorers.local.weights import locate
from mindscore.serve.app import make_app

pytestmark = pytest.mark.model

NATS = 1e-3
ADAPTERS = ["score", "vllm", "openai", "auto"]
TEXT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>memory\nThe user's cat is called Fitzgerald. Prix fixé: 5 €.<|im_end|>\n"
    "<|im_start|>user\nWhat is my cat called?<|im_end|>\n"
    "<|im_start|>assistant\nYour cat is called Fitzgerald.<|im_end|>\n"
    "<|im_start|>user\nThank you, goodbye!<|im_end|>\n"
    "<|im_start|>assistant\nYou're welcome.<|im_end|>\n"
)


@asynccontextmanager
async def served() -> AsyncIterator[tuple[LocalScorer, str]]:
    """A local scorer, and the address at which it is served."""
    async with aclosing(LocalScorer({})) as local, listen(make_app(local)) as listening:
        yield local, f"{listening.address}/v1"


@asynccontextmanager
async def adapter(name: str, url: str) -> AsyncIterator[Scorer]:
    """The installed scorer of that name, for the server at ``url``."""
    table: dict[str, Any] = {"scorer": name, "base_url": url, "model": "smollm2"}
    if name == "score":
        # The protocol has no tokenising.
        table["tokenizer"] = str(Path(locate("smollm2")) / "tokenizer.json")
    async with Registry(StubMind(), {"server": table}) as registry:
        yield await registry.scorer()


def spans(tokens: list[int]) -> tuple[tuple[int, int], ...]:
    return ((1, 5), (40, 50), (50, 51), (len(tokens) - 6, len(tokens)))


@pytest.mark.parametrize("name", ADAPTERS)
async def test_totals_are_those_of_local(name: str) -> None:
    async with served() as (local, url), adapter(name, url) as remote:
        tokens = await local.tokenize(TEXT)
        without = tokens[:12] + tokens[30:]
        prompts = [
            WirePrompt(tuple(ids), (), spans(ids), ("a", "b", "c", "d"))
            for ids in (tokens, without)
        ]
        expected = (await local.score(prompts)).ranges
        got = (await remote.score(prompts)).ranges
    for answer, other in zip(got, expected, strict=True):
        totals = [it.total for it in other]
        assert [it.total for it in answer] == pytest.approx(totals, abs=NATS)


@pytest.mark.parametrize("name", ADAPTERS)
async def test_tokens_are_those_of_local(name: str) -> None:
    async with served() as (local, url), adapter(name, url) as remote:
        for text in (TEXT, "", " \n\t", "naïve 日本語 🙂 <|im_end|>"):
            assert await remote.tokenize(text) == await local.tokenize(text)


@pytest.mark.parametrize("name", ADAPTERS)
async def test_texts_that_scorers_make_are_those_of_local(name: str) -> None:
    async with served() as (local, url), adapter(name, url) as remote:
        for text in (TEXT, "naïve 日本語 🙂 <|im_end|>"):
            assert await remote.detokenize(await local.tokenize(text)) == text


@pytest.mark.parametrize("name", ADAPTERS)
async def test_what_is_said_is_what_local_says(name: str) -> None:
    async with served() as (local, url), adapter(name, url) as remote:
        asked = await local.tokenize(TEXT[: TEXT.index("Your cat")])
        [stop] = await local.tokenize("<|im_end|>")
        prompt = WirePrompt(tuple(asked), (), (), ())
        expected = await local.generate(prompt, max_tokens=24, stop=[stop])
        got = await remote.generate(prompt, max_tokens=24, stop=[stop])
    assert got == expected


async def test_texts_of_ids_are_those_of_local() -> None:
    async with served() as (local, url), aiohttp.ClientSession() as session:
        tokens = await local.tokenize(TEXT)
        async with session.post(f"{url}/detokenize", json={"tokens": tokens}) as answer:
            assert await answer.json() == {"prompt": TEXT}


async def test_a_prompt_that_does_not_fit_is_the_clients_to_mend() -> None:
    async with served() as (_, url), aiohttp.ClientSession() as session:
        for path, body in [
            ("score", {"prompt": [1, 2, 49_152], "score_ranges": [[1, 3]]}),
            ("score", {"prompt": [1] * 8193, "score_ranges": [[8000, 8193]]}),
            ("completions", {"prompt": [1, 49_152], "max_tokens": 1}),
            ("completions", {"prompt": [1] * 8192, "max_tokens": 1}),
        ]:
            async with session.post(f"{url}/{path}", json=body) as answer:
                assert answer.status == 400, path
                said = (await answer.json())["error"]["message"]
            assert "49152 is outside" in said or "the model reads at most 8192" in said


@pytest.mark.parametrize(
    ("path", "endless"),
    [
        ("completions", {"prompt": [1, 2, 3, 4], "max_tokens": 8000}),
        ("score", {"prompt": [5] * 8000, "score_ranges": [[1, 8000]]}),
    ],
)
async def test_a_client_that_goes_frees_the_model(path: str, endless: Any, caplog: Any) -> None:
    async with served() as (local, url), aiohttp.ClientSession() as session:
        await local.score([])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0), session.post(f"{url}/{path}", json=endless):
                pass
        body = {"prompt": [1, 2, 3, 4], "score_ranges": [[1, 4]]}
        async with asyncio.timeout(30), session.post(f"{url}/score", json=body) as answer:
            assert answer.status == 200
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_what_prompts_share_is_computed_once() -> None:
    async with served() as (local, url), aiohttp.ClientSession() as session:
        tokens = await local.tokenize(TEXT)
        cached = []
        for ids in (tokens, tokens, tokens[:60] + tokens[70:]):
            body = {"prompt": ids, "score_ranges": [[65, len(ids)]]}
            async with session.post(f"{url}/score", json=body) as answer:
                usage = (await answer.json())["usage"]
            assert usage["prompt_tokens"] == len(ids)
            cached.append(usage["prompt_tokens_details"]["cached_tokens"])
    assert cached[0] == 0
    assert 64 <= cached[1] < len(tokens)
    assert cached[2] == 60


async def test_a_prompt_is_scored_and_continued_in_one_pass() -> None:
    async with served() as (local, url), aiohttp.ClientSession() as session:
        tokens = await local.tokenize(TEXT)
        await local.score([])
        forwards = count_forwards(local)
        body = {"prompt": tokens, "max_tokens": 1, "echo": True, "logprobs": 1}
        async with session.post(f"{url}/completions", json=body) as answer:
            [choice] = (await answer.json())["choices"]
    assert len(choice["logprobs"]["token_logprobs"]) == len(tokens) + 1
    assert max(forwards) < len(tokens)
    assert sum(forwards) <= len(tokens) + 4


def count_forwards(local: LocalScorer) -> list[int]:
    """The lengths of what runs through the model, from now on."""
    lengths = []
    model = local._loaded._model
    plain = model.forward

    def counted(*given, **named):
        lengths.append(named["input_ids"].shape[1])
        return plain(*given, **named)

    model.forward = counted
    return lengths
