"""KV caches of earlier prompts: the same values, from fewer tokens.

On a tiny model whose caches are as large as the real one's, and by ``make slow`` on the real one.
"""

import asyncio
import inspect
import random
import threading
from contextlib import asynccontextmanager
from functools import cache
from itertools import accumulate

import pytest

from mindhooks import WirePrompt, in_thread
from mindscore.scorers.local import model as local_model
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.scorers.local.weights import locate

from ...tiny_model import write_tiny_model

PIECES = {
    "head": "<|im_start|>system\nYou help.<|im_end|>\n",
    "a": "<|im_start|>memory\nThe cat is called Fitzgerald.<|im_end|>\n",
    "ask 1": "<|im_start|>user\nWhat is my cat called?<|im_end|>\n<|im_start|>assistant\n",
    "said 1": "Fitzgerald.<|im_end|>",
    "b": "\n<|im_start|>memory\nThe user lives in Oslo.<|im_end|>",
    "ask 2": "\n<|im_start|>user\nWhere do I live?<|im_end|>\n<|im_start|>assistant\n",
    "said 2": "In Oslo.<|im_end|>",
    "c": "\n<|im_start|>memory\nThe user drinks tea.<|im_end|>",
    "ask 3": "\n<|im_start|>user\nWhat do I drink?<|im_end|>\n<|im_start|>assistant\n",
    "said 3": "Tea.<|im_end|>",
}
# What each memory's piece and the one after it begin with alike: `<|im_start|>` for a, and the
# newline before it too for b and c.
AHEAD = {"a": 1, "b": 2, "c": 2}
ALL = ("said 1", "said 2", "said 3")
ROOMY = 64
REAL = "smollm2"


@pytest.fixture(
    scope="module",
    params=["tiny", pytest.param(REAL, marks=[pytest.mark.slow, pytest.mark.model])],
)
def model(request, tmp_path_factory, tokenizer_file):
    """A model, as ``[server] model`` names it."""
    if request.param == REAL:
        return REAL
    folder = tmp_path_factory.mktemp("tiny")
    return str(write_tiny_model(folder, tokenizer_file, length=1024, head_dim=504))


@pytest.fixture(scope="module")
def token_bytes(model):
    """What one token takes in a cache: layers, heads, dimensions, keys and values, float32."""
    return (30 * 3 * 64 if model == REAL else 2 * 2 * 504) * 2 * 4


@pytest.fixture(scope="module")
def opened(model):
    """``async with opened(cache_mb) as scorer``."""

    @asynccontextmanager
    async def opened(cache_mb=ROOMY):
        scorer = LocalScorer({"model": model, "cache_mb": cache_mb})
        try:
            yield scorer
        finally:
            await scorer.aclose()

    return opened


@pytest.fixture(scope="module")
def plain(model):
    """Log-probabilities of a prompt's ranges by a plain forward of all of it.

    The model is one of its own, as it comes: scorers choose another attention for theirs.
    """
    import torch
    from transformers import AutoModelForCausalLM

    name = locate(model) if model == REAL else model
    network = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()

    @cache
    @torch.inference_mode()
    def logprobs(tokens):
        ids = torch.tensor([tokens])
        values = network(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(1)
        return values.gather(1, ids[0, 1:, None])[:, 0].tolist()

    def values(prompt):
        return [logprobs(prompt.tokens)[start - 1 : end - 1] for start, end in prompt.ranges]

    return values


@pytest.fixture(scope="module")
def pieces(opened):
    """The ids of each piece of the conversation."""

    async def ids():
        async with opened() as scorer:
            return {name: await scorer.tokenize(text) for name, text in PIECES.items()}

    return asyncio.run(ids())


@pytest.fixture
def ask(pieces):
    """The conversation without the pieces ``gone``, up to the last of the responses asked for."""

    def prompt(*gone, asked=ALL):
        names = [name for name in pieces if name not in gone]
        ends = dict(zip(names, accumulate(len(pieces[name]) for name in names), strict=True))
        ranges = tuple((ends[name] - len(pieces[name]), ends[name]) for name in asked)
        tokens = [token for name in names for token in pieces[name]]
        return WirePrompt(tuple(tokens[: ranges[-1][1]]), (), ranges, asked)

    return prompt


@pytest.fixture
def ablations(ask):
    """The baseline, and the prompt without each memory, which asks for what comes after it."""
    without = {
        "a": ask("a"),
        "b": ask("b", asked=("said 2", "said 3")),
        "c": ask("c", asked=("said 3",)),
    }
    return ask(), without


@pytest.fixture
def departs(pieces):
    """How many tokens the prompt without a memory begins with as the baseline does, by hand."""
    names = list(pieces)
    return {
        key: sum(len(pieces[name]) for name in names[: names.index(key)]) + AHEAD[key]
        for key in AHEAD
    }


def kept(scorer):
    """The bytes of the memory below what is kept."""
    layers = [layer for it in scorer._loaded._caches._kept for layer in it.cache.layers]
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for layer in layers
        for piece in layer.pieces
        for tensor in piece
    }
    return sum(storages.values())


async def scored(scorer, prompt, plain, cache_mb=ROOMY):
    """How many tokens were computed; the values are checked, and what is kept."""
    result = await scorer.score([prompt])
    [ranges] = result.ranges
    for score, expected in zip(ranges, plain(prompt), strict=True):
        assert score.values == pytest.approx(expected, abs=1e-3)
        assert score.total == pytest.approx(sum(expected), abs=1e-3)
    assert kept(scorer) <= cache_mb * 2**20
    return result.computed_tokens


def full(prompt):
    """All tokens but the last: no log-probability is wanted after that one."""
    return len(prompt.tokens) - 1


# -- what is computed -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["abc", "cba", "random"])
async def test_each_prompt_is_computed_from_where_it_departs_from_the_baseline(
    order, ablations, departs, plain, opened
):
    baseline, without = ablations
    order = random.Random(5).sample("abc", 3) if order == "random" else order
    async with opened() as scorer:
        assert await scored(scorer, baseline, plain) == full(baseline)
        for key in order:
            assert await scored(scorer, without[key], plain) == full(without[key]) - departs[key]
        # Whatever was asked meanwhile, all of it is kept.
        assert await scored(scorer, baseline, plain) == 0
    assert scorer.reuses_prefixes


@pytest.mark.parametrize(
    "model", ["tiny", pytest.param(REAL, marks=pytest.mark.model)], indirect=True
)
async def test_the_prompts_of_one_call_share_as_those_of_several_do(
    ablations, departs, plain, opened
):
    baseline, without = ablations
    async with opened() as scorer:
        result = await scorer.score([baseline, *without.values()])
    lengths = [full(without[key]) - departs[key] for key in without]
    assert result.computed_tokens == full(baseline) + sum(lengths)
    for prompt, ranges in zip([baseline, *without.values()], result.ranges, strict=True):
        for score, expected in zip(ranges, plain(prompt), strict=True):
            assert score.values == pytest.approx(expected, abs=1e-3)


async def test_the_same_prompt_again_gives_the_same_to_the_bit_and_computes_nothing(
    ablations, opened
):
    baseline, without = ablations
    async with opened() as scorer:
        first = await scorer.score([baseline])
        await scorer.score([without["b"]])
        again = await scorer.score([baseline])
    assert again.ranges == first.ranges
    assert (first.computed_tokens, again.computed_tokens) == (full(baseline), 0)


async def test_of_what_is_asked_later_only_what_is_not_known_is_computed(ask, plain, opened):
    first, last, both = (ask(asked=ids) for ids in (ALL[:1], ALL[2:], ALL))
    end_of_first = first.ranges[0][1]
    async with opened() as scorer:
        assert await scored(scorer, first, plain) == full(first)
        # It goes on where that one ended: its last token was not computed.
        assert await scored(scorer, last, plain) == full(last) - (end_of_first - 1)
        # The first response is known; the row before the second one's first token was not read.
        assert await scored(scorer, both, plain) == full(both) - (both.ranges[1][0] - 1)
        for asked in (ALL, ALL[:2], ALL[1:2], ALL[:1]):
            assert await scored(scorer, ask(asked=asked), plain) == 0
        # What is only the beginning of another is not kept beside it.
        assert len(scorer._loaded._caches._kept) == 1


async def test_a_prompt_that_departs_within_a_response_is_computed_from_there(
    ask, pieces, plain, opened
):
    whole = ask(asked=("said 1",))
    [(start, end)] = whole.ranges
    other = WirePrompt(
        (*whole.tokens[: start + 1], *pieces["said 2"]),
        (),
        ((start, start + 1 + len(pieces["said 2"])),),
        ("other",),
    )
    assert end - start > 2
    async with opened() as scorer:
        await scored(scorer, whole, plain)
        # The value of the token at `start` is known, that of the next one is another's.
        assert await scored(scorer, other, plain) == full(other) - start


async def test_the_value_of_another_s_token_is_not_taken_over_where_it_was_not_asked_for(
    ask, pieces, plain, opened
):
    whole = ask(asked=("said 1",))
    [(start, _)] = whole.ranges
    tokens = (*whole.tokens[:start], *pieces["said 3"], *pieces["said 2"])
    end_of_third = start + len(pieces["said 3"])
    later = WirePrompt(tokens, (), ((end_of_third, len(tokens)),), ("later",))
    at_departure = WirePrompt(tokens[:end_of_third], (), ((start, end_of_third),), ("first",))
    assert tokens[start] != whole.tokens[start]
    async with opened() as scorer:
        for prompt in (whole, later, at_departure, later):
            await scored(scorer, prompt, plain)


async def test_stretches_make_no_difference(ablations, departs, plain, monkeypatch, opened):
    baseline, without = ablations
    monkeypatch.setattr(local_model, "CHUNK_TOKENS", 7)
    async with opened() as scorer:
        assert await scored(scorer, baseline, plain) == full(baseline)
        for key in "cab":
            assert await scored(scorer, without[key], plain) == full(without[key]) - departs[key]


# -- how much is kept -----------------------------------------------------------------------------


async def test_without_a_cache_every_prompt_is_computed_in_full(ablations, plain, opened):
    baseline, without = ablations
    async with opened(0) as scorer:
        assert not scorer.reuses_prefixes
        for prompt in (baseline, baseline, *without.values()):
            assert await scored(scorer, prompt, plain, 0) == full(prompt)
        assert kept(scorer) == 0


async def test_where_not_one_prompt_fits_every_one_is_computed_in_full(
    ablations, plain, opened, token_bytes
):
    baseline, without = ablations
    assert full(without["c"]) * token_bytes > 2**20
    async with opened(1) as scorer:
        for prompt in (baseline, baseline, *without.values()):
            assert await scored(scorer, prompt, plain, 1) == full(prompt)


@pytest.fixture
def room_for_one(ablations, token_bytes):
    """A limit, in MiB, that one of these prompts fits in, and no two of them."""
    baseline, without = ablations
    longest = full(baseline) * token_bytes
    shortest = min(map(full, without.values())) * token_bytes
    limit = -(-longest // 2**20)
    assert longest <= limit * 2**20 < 2 * shortest
    return limit


async def test_where_one_prompt_fits_descending_order_computes_as_little_as_with_more_room(
    ablations, departs, plain, opened, room_for_one
):
    baseline, without = ablations
    limit = room_for_one
    async with opened(limit) as scorer:
        assert await scored(scorer, baseline, plain, limit) == full(baseline)
        for key in "cba":
            expected = full(without[key]) - departs[key]
            assert await scored(scorer, without[key], plain, limit) == expected


async def test_where_two_prompts_fit_the_one_that_others_go_on_from_stays(
    ablations, departs, plain, opened, room_for_one, token_bytes
):
    baseline, without = ablations
    limit = 2 * room_for_one
    assert limit * 2**20 < 3 * min(map(full, without.values())) * token_bytes
    async with opened(limit) as scorer:
        await scored(scorer, baseline, plain, limit)
        for key in "abc":
            expected = full(without[key]) - departs[key]
            assert await scored(scorer, without[key], plain, limit) == expected
        assert await scored(scorer, baseline, plain, limit) == 0


async def test_where_one_prompt_fits_ascending_order_has_what_the_last_prompt_shares(
    ablations, departs, plain, opened, room_for_one
):
    baseline, without = ablations
    limit = room_for_one
    async with opened(limit) as scorer:
        await scored(scorer, baseline, plain, limit)
        computed = [await scored(scorer, without[key], plain, limit) for key in "abc"]
    assert computed == [
        full(without["a"]) - departs["a"],
        # Without b there is a, without a there is not.
        full(without["b"]) - departs["a"],
        full(without["c"]) - departs["b"],
    ]


@pytest.mark.parametrize("cache_mb", [1, 3, 5, ROOMY])
async def test_any_prompts_in_any_order_have_their_values_within_any_limit(
    cache_mb, ask, pieces, plain, opened
):
    chance = random.Random(cache_mb)
    optional = [name for name in pieces if name not in ("head", *ALL)]
    async with opened(cache_mb) as scorer:
        for _ in range(8):
            gone = chance.sample(optional, chance.randrange(3))
            asked = tuple(sorted(chance.sample(ALL, chance.randint(1, 3))))
            prompt = ask(*gone, asked=asked)
            assert await scored(scorer, prompt, plain, cache_mb) <= full(prompt)


# -- generation, failures, cancelling -------------------------------------------------------------


async def test_generation_after_scoring_is_that_of_a_fresh_scorer(ablations, ask, plain, opened):
    baseline, without = ablations
    [(start, _)] = ask(asked=("said 1",)).ranges
    bare, whole = (WirePrompt(it.tokens[:start], (), (), ()) for it in (ask(), baseline))
    asked = [bare, WirePrompt(without["b"].tokens[:-3], (), (), ()), whole]

    async def speak(scorer, prompt):
        return await scorer.generate(prompt, max_tokens=6, stop=())

    fresh, uncached = [], []
    for prompt in asked:
        async with opened() as scorer, opened(0) as other:
            fresh.append(await speak(scorer, prompt))
            uncached.append(await speak(other, prompt))
    async with opened() as scorer:
        for prompt in (baseline, *without.values()):
            await scored(scorer, prompt, plain)
        after = [await speak(scorer, prompt) for prompt in asked]
        again = [await speak(scorer, prompt) for prompt in asked]
        # What was said did not get into what is kept.
        for prompt in (baseline, *without.values()):
            await scored(scorer, prompt, plain)
    assert after == again == fresh == uncached


async def test_what_was_read_to_generate_is_not_computed_again_to_score(ask, plain, opened):
    prompt = ask(asked=("said 1",))
    [(start, _)] = prompt.ranges
    async with opened() as scorer:
        spoken = await scorer.generate(
            WirePrompt(prompt.tokens[:start], (), (), ()), max_tokens=2, stop=()
        )
        assert len(spoken.token_ids) == 2
        # All but the last token before the response.
        assert await scored(scorer, prompt, plain) == full(prompt) - (start - 1)
        assert kept(scorer) <= ROOMY * 2**20


class Raises:
    """A model that cannot go on from a cache: ``forward`` raises, from its ``n``-th call on.

    The cache's argument has another name from transformers 5.24 on.
    """

    def __init__(self, honest, n):
        self.honest, self.left = honest, n
        takes = inspect.signature(honest).parameters
        self.name = "cache" if "cache" in takes else "past_key_values"

    def __call__(self, *args, **kwargs):
        self.left -= kwargs[self.name] is not None
        if kwargs[self.name] is not None and self.left <= 0:
            raise TypeError("no such cache")
        return self.honest(*args, **kwargs)


class Ignores(Raises):
    """A model that leaves the cache it is given alone."""

    def __call__(self, *args, **kwargs):
        self.left -= kwargs[self.name] is not None
        if self.left <= 0:
            kwargs |= {self.name: None, "use_cache": False}
        return self.honest(*args, **kwargs)


# From the first call on there is no cache at all; at the second one it has a prefix already.
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("wrong", [Raises, Ignores])
async def test_a_model_that_makes_nothing_of_a_cache_is_scored_in_full(
    wrong, n, ablations, plain, monkeypatch, opened
):
    baseline, without = ablations
    async with opened() as scorer:
        await scorer.score([])
        model = scorer._loaded._model
        monkeypatch.setattr(model, "forward", wrong(model.forward, n))
        for prompt in (baseline, *without.values(), baseline):
            assert await scored(scorer, prompt, plain) == full(prompt)
        assert kept(scorer) == 0


async def test_a_model_that_fails_in_the_middle_of_a_prompt_is_scored_in_full_from_then_on(
    ablations, plain, monkeypatch, opened
):
    baseline, without = ablations
    monkeypatch.setattr(local_model, "CHUNK_TOKENS", 30)
    async with opened() as scorer:
        assert await scored(scorer, baseline, plain) == full(baseline)
        model = scorer._loaded._model
        monkeypatch.setattr(model, "forward", Raises(model.forward, 2))
        for prompt in (without["a"], without["a"], baseline):
            assert await scored(scorer, prompt, plain) == full(prompt)
        assert kept(scorer) == 0


async def test_a_score_that_is_cancelled_ends_between_stretches_and_the_next_one_works(
    ablations, ask, departs, plain, monkeypatch, opened
):
    _, without = ablations
    last = ask(asked=("said 3",))
    monkeypatch.setattr(local_model, "CHUNK_TOKENS", 8)
    running, go, calls = threading.Event(), threading.Event(), []
    async with opened() as scorer:
        await scored(scorer, without["c"], plain)
        model = scorer._loaded._model
        honest = model.forward

        def forward(*args, **kwargs):
            calls.append(kwargs["input_ids"].shape[1])
            running.set()
            go.wait(30)
            return honest(*args, **kwargs)

        monkeypatch.setattr(model, "forward", forward)
        asking = asyncio.create_task(scorer.score([without["a"]]))
        assert await in_thread(running.wait, 30)
        asking.cancel()
        await asyncio.sleep(0.01)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await asking
        # It had most of its stretches before it.
        assert calls == [8]
        assert full(without["a"]) - departs["a"] > 3 * 8
        # Nothing of it is kept, and nothing of what was is lost.
        assert await scored(scorer, without["a"], plain) == full(without["a"]) - departs["a"]
        assert await scored(scorer, without["c"], plain) == 0
        assert await scored(scorer, last, plain) == full(last) - departs["c"]


async def test_a_prompt_of_one_token_is_continued_and_caches_go_on(ablations, opened):
    [prompt, *_] = ablations
    async with opened() as scorer:
        await scorer.generate(WirePrompt((1,), (), (), ()), max_tokens=2, stop=())
        first = await scorer.score([prompt])
        again = await scorer.score([prompt])
    assert again.ranges == first.ranges
    assert again.computed_tokens == 0
