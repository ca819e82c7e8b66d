"""Chunks, pieces and lack of memory: the same values, or an error that says what to do."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest
import torch
from transformers import AutoModelForCausalLM

from mindhooks import ScorerError, WirePrompt
from mindscore.scorers.local import chunks, devices
from mindscore.scorers.local import model as local_model
from mindscore.scorers.local.chunks import Chunks
from mindscore.scorers.local.kv_cache import PrefixCaches
from mindscore.scorers.local.scorer import LocalScorer

from ...tiny_model import write_tiny_model

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
OF_THE_CPU = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer_file):
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny"), tokenizer_file))


@asynccontextmanager
async def opened(tiny, **table):
    scorer = LocalScorer({"model": tiny, **table})
    try:
        yield scorer
    finally:
        await scorer.aclose()


@pytest.fixture(scope="module")
def plain(tiny):
    """The values of a prompt's one range, by a plain forward of the model as it comes."""
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()

    @torch.inference_mode()
    def values(prompt):
        ids = torch.tensor([prompt.tokens])
        logprobs = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(1)
        [(start, end)] = prompt.ranges
        return logprobs.gather(1, ids[0, 1:, None])[start - 1 : end - 1, 0].tolist()

    return values


def prompt(length=200, start=1, seed=1):
    tokens = random.Random(seed).choices(range(3, 400), k=length)
    return WirePrompt(tuple(tokens), (), ((start, length),), ("r",))


async def check(scorer, plain, *prompts):
    """Score them; return how many tokens were computed."""
    result = await scorer.score(prompts)
    for each, [found] in zip(prompts, result.ranges, strict=True):
        assert found.values == pytest.approx(plain(each), abs=1e-4)
    return result.computed_tokens


# -- chunks and pieces ----------------------------------------------------------------------------


async def test_on_the_cpu_the_attention_to_pieces_is_the_one_that_is_used(tiny):
    async with opened(tiny) as scorer:
        await scorer.score([])
        assert scorer._loaded._model.config._attn_implementation == "mindscore_causal"
        assert scorer.reuses_prefixes


@pytest.mark.parametrize("joins_new", [False, True])
@pytest.mark.parametrize("seed", range(4))
async def test_any_split_of_prompts_into_pieces_gives_the_values_of_plain_forwards(
    seed, joins_new, tiny, plain, monkeypatch
):
    chance = random.Random(seed)
    monkeypatch.setattr(local_model, "CHUNK_TOKENS", chance.choice([1, 7, 30, 64, 300]))
    monkeypatch.setattr(chunks, "LOGITS_BYTES", chance.choice([1, 400 * 4 * 5, 2**30]))
    monkeypatch.setattr(local_model, "PrefixCaches", caches_that(joins_new))
    whole = prompt().tokens
    async with opened(tiny, cache_mb=chance.choice([1, 64])) as scorer:
        for _ in range(8):
            gone, rest = chance.randrange(1, 150), chance.randrange(20, 50)
            tokens = (*whole[:gone], *whole[gone + chance.randrange(40) :][:rest])
            start = chance.randrange(1, len(tokens))
            asked = WirePrompt(tokens, (), ((start, len(tokens)),), ("r",))
            await check(scorer, plain, asked)


def caches_that(joins_new):
    return lambda config, limit, **more: PrefixCaches(
        config, limit, **(more | {"joins_new": joins_new})
    )


async def test_an_accelerators_caches_have_one_piece_for_each_fork(tiny, plain, monkeypatch):
    monkeypatch.setattr(local_model, "CHUNK_TOKENS", 30)
    monkeypatch.setattr(local_model, "PrefixCaches", caches_that(True))
    first = prompt()
    later = WirePrompt((*first.tokens[:100], *first.tokens[110:]), (), ((120, 190),), ("r",))
    async with opened(tiny) as scorer:
        assert await check(scorer, plain, first) == 199
        assert await check(scorer, plain, later) == 189 - 100
        kept = scorer._loaded._caches._kept
        pieces = [[keys.shape[2] for keys, _ in it.cache.layers[0].pieces] for it in kept]
        assert pieces == [[199], [100, 89]]
        # What they share is in memory once.
        storages = {it.cache.layers[0].pieces[0][0].untyped_storage().data_ptr() for it in kept}
        assert len(storages) == 1


def test_no_chunk_has_more_tokens_or_rows_than_fit():
    rows = [0, 1, 2, 3, 10, 50, 51, 52, 53, 54, 55]
    it = Chunks(tokens=20, row_bytes=chunks.LOGITS_BYTES // 4)
    assert it.most_rows == 4
    found = list(it.split(0, 60, rows, first=15))
    assert found == [(0, 10), (10, 30), (30, 50), (50, 54), (54, 60)]
    assert list(it.split(7, 7, rows)) == []
    # One row is computed however large it is.
    assert Chunks(tokens=20, row_bytes=2**40).most_rows == 1


def test_a_gpu_computes_more_tokens_at_once():
    assert devices.Compute("cuda:1", "bfloat16").chunk_tokens(1024) == 4096
    assert devices.Compute("cpu", "bfloat16").chunk_tokens(1024) == 1024


@pytest.mark.parametrize("cache_mb", [0, 64])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
async def test_the_noise_of_a_short_prompt_is_measured_by_other_chunks(
    dtype, cache_mb, tiny, plain
):
    asked = prompt()
    async with opened(tiny, dtype=dtype, cache_mb=cache_mb) as scorer:
        assert scorer.noisy
        [[first]] = (await scorer.score([asked])).ranges
        again = await scorer.score([asked])
        [[second]] = again.ranges
    assert again.computed_tokens == 199
    floor = max(abs(a - b) for a, b in zip(first.values, second.values, strict=True))
    assert 0 < floor < 0.5
    # They are as near to float32 as that, within a generous factor.
    exact = plain(asked)
    worst = max(abs(a - b) for a, b in zip(first.values, exact, strict=True))
    assert worst < 20 * floor


# -- out of memory --------------------------------------------------------------------------------


def limited(model, most, error=OUT_OF_MEMORY):
    """A forward of ``model`` that has memory for so many tokens at once."""
    honest, seen = model.forward, []

    def forward(*args, input_ids, **more):
        seen.append(input_ids.shape[1])
        if input_ids.shape[1] > most:
            raise error
        return honest(*args, input_ids=input_ids, **more)

    # As the honest one: the model's own generation looks at its parameters.
    forward.__wrapped__ = honest
    return forward, seen


def fails_once(model):
    """A forward of ``model`` whose first call has no memory."""
    honest, failures = model.forward, [OUT_OF_MEMORY]

    def forward(*args, **more):
        if failures:
            raise failures.pop()
        return honest(*args, **more)

    return forward


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, OF_THE_CPU])
async def test_out_of_memory_a_prompt_is_computed_in_smaller_chunks(
    error, tiny, plain, monkeypatch
):
    monkeypatch.setattr(local_model, "CHUNK_TOKENS", 256)
    async with opened(tiny) as scorer:
        await check(scorer, plain, prompt(seed=2))
        model = scorer._loaded._model
        forward, seen = limited(model, 70, error)
        monkeypatch.setattr(model, "forward", forward)
        assert await check(scorer, plain, prompt()) == 199
        # Once more when caches are freed, then with ever smaller ones.
        assert seen == [199, 199, 128, 64, 64, 64, 7]
        # Others begin with those, and caches go on.
        assert await check(scorer, plain, prompt()) == 0
        assert await check(scorer, plain, prompt(seed=3)) == 199
        assert max(seen[7:]) == 64


async def test_a_prompt_that_fits_in_no_way_is_an_error_and_the_scorer_goes_on(
    tiny, plain, monkeypatch
):
    async with opened(tiny) as scorer:
        await scorer.score([])
        model = scorer._loaded._model
        forward, _ = limited(model, 40)
        monkeypatch.setattr(model, "forward", forward)
        said = (
            r"a prompt of 200 tokens needs more memory than there is on cpu, float32 "
            r"\(CUDA out of memory.*\): free memory there, .* server\.device or server\.dtype"
        )
        with pytest.raises(ScorerError, match=said):
            await scorer.score([prompt()])
        assert await check(scorer, plain, prompt(length=40, seed=2)) == 39
        monkeypatch.undo()
        # In chunks of the usual size again.
        assert scorer._loaded._chunks.tokens == local_model.CHUNK_TOKENS
        assert await check(scorer, plain, prompt()) == 199


async def test_out_of_memory_for_one_call_frees_the_caches_and_keeps_the_chunks(
    tiny, plain, monkeypatch
):
    async with opened(tiny) as scorer:
        await check(scorer, plain, prompt(seed=2))
        model = scorer._loaded._model
        monkeypatch.setattr(model, "forward", fails_once(model))
        assert await check(scorer, plain, prompt()) == 199
        assert scorer._loaded._chunks.tokens == local_model.CHUNK_TOKENS
        assert [it.ids for it in scorer._loaded._caches._kept] == [prompt().tokens]


async def test_a_text_is_generated_in_smaller_chunks_too(tiny, monkeypatch):
    monkeypatch.setattr(local_model, "CHUNK_TOKENS", 128)
    asked = WirePrompt(prompt().tokens, (), (), ())
    async with opened(tiny) as scorer:
        expected = await scorer.generate(asked, max_tokens=5, stop=())
    async with opened(tiny) as scorer:
        await scorer.score([])
        model = scorer._loaded._model
        forward, seen = limited(model, 70)
        monkeypatch.setattr(model, "forward", forward)
        assert await scorer.generate(asked, max_tokens=5, stop=()) == expected
        assert seen[:5] == [128, 64, 64, 64, 7]


async def test_a_text_that_cannot_be_generated_for_lack_of_memory_is_an_error(tiny, monkeypatch):
    asked = WirePrompt(prompt().tokens, (), (), ())

    def fail(*_, **__):
        raise OUT_OF_MEMORY

    async with opened(tiny) as scorer:
        await scorer.score([])
        # The prompt itself fits, and is cached anew each time.
        monkeypatch.setattr(scorer._loaded._model, "generate", fail)
        with pytest.raises(ScorerError, match="a prompt of 205 tokens needs more memory"):
            await asyncio.wait_for(scorer.generate(asked, max_tokens=5, stop=()), 60)


async def test_a_model_without_caches_has_logits_for_fewer_rows_at_once(tiny, plain, monkeypatch):
    monkeypatch.setattr(local_model, "CHUNK_TOKENS", 256)
    async with opened(tiny) as scorer:
        await scorer.score([])
        scorer._loaded._caching = False
        assert not scorer.reuses_prefixes
        model, rows = scorer._loaded._model, []
        honest = model.forward

        def forward(*args, logits_to_keep, **more):
            rows.append(len(logits_to_keep))
            if len(logits_to_keep) > 100:
                raise OUT_OF_MEMORY
            return honest(*args, logits_to_keep=logits_to_keep, **more)

        monkeypatch.setattr(model, "forward", forward)
        assert await check(scorer, plain, prompt()) > 199
        assert rows == [199, 128, 64, 64, 64, 7]


async def test_caches_that_follow_free_memory_take_less_once_it_ran_out(tiny, plain, monkeypatch):
    rooms = iter([2**20, 2**18])
    monkeypatch.setattr(devices, "cache_bytes", lambda *_: next(rooms))
    async with opened(tiny) as scorer:
        await check(scorer, plain, prompt(seed=2))
        caches = scorer._loaded._caches
        assert caches._limit == 2**20
        model = scorer._loaded._model
        monkeypatch.setattr(model, "forward", fails_once(model))
        await check(scorer, plain, prompt())
        assert caches._limit == 2**18
        # A number of the user's stays.
    async with opened(tiny, cache_mb=1) as scorer:
        monkeypatch.undo()
        await check(scorer, plain, prompt(seed=2))
        model = scorer._loaded._model
        monkeypatch.setattr(model, "forward", fails_once(model))
        await check(scorer, plain, prompt())
        assert scorer._loaded._caches._limit == 2**20


# -- weights in several places --------------------------------------------------------------------


async def test_a_model_that_accelerate_spreads_is_scored_and_forked_as_any_other(
    tiny, plain, monkeypatch, tmp_path
):
    parts = {
        "model.embed_tokens": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    }
    spread = {"device_map": parts, "offload_folder": str(tmp_path)}
    monkeypatch.setattr(devices, "placement", lambda *_: spread)
    first = prompt()
    later = WirePrompt((*first.tokens[:100], *first.tokens[110:]), (), ((120, 190),), ("r",))
    async with opened(tiny) as scorer:
        assert await check(scorer, plain, first) == 199
        assert await check(scorer, plain, later) == 89
        model = scorer._loaded._model
        assert model.config._attn_implementation == "mindscore_causal"
        # Hooks of accelerate's do run the layers.
        assert set(model.hf_device_map.values()) == {"cpu", "disk"}
        bare = WirePrompt(first.tokens, (), (), ())
        assert len((await scorer.generate(bare, max_tokens=3, stop=())).token_ids) == 3
