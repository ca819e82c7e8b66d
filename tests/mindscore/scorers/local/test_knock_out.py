"""Responses that do not see some tokens: as by a mask over the whole prompt, from few rows."""

import asyncio
import math
import random
from contextlib import aclosing

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from mindhooks import Image, ScorerCapabilities, ScorerError, WirePrompt
from mindscore.scorers.local import attention, chunks, devices, knock_out
from mindscore.scorers.local import model as local_model
from mindscore.scorers.local.devices import Compute
from mindscore.scorers.local.knock_out import chunked, merged
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.scorers.local.weights import LocalTokenizer

from ...tiny_model import CONTEXT_LENGTH, SMALL, write_tiny_model

MODELS = {
    "LlamaForCausalLM": {"num_key_value_heads": 4},
    "Qwen2ForCausalLM": {},
    "Qwen3ForCausalLM": {"num_key_value_heads": 1, "head_dim": 16},
    "GemmaForCausalLM": {"head_dim": 16},
    "GPT2LMHeadModel": {},
}
REFUSED = {
    "MistralForCausalLM": ({"sliding_window": 100}, "looks at all"),
    "Gemma2ForCausalLM": ({"head_dim": 16, "sliding_window": 100}, "looks at all"),
    "FalconForCausalLM": ({"alibi": True, "new_decoder_architecture": False}, ""),
    "BloomForCausalLM": ({}, ""),
    "MambaForCausalLM": ({"state_size": 4}, ""),
    "GPTNeoForCausalLM": ({"attention_types": [[["global", "local"], 1]], "num_layers": 2}, ""),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, tokenizer_file):
    """Return a function that writes a random model, and returns its folder."""

    def write(name, **more):
        folder = tmp_path_factory.mktemp(name)
        config = getattr(transformers, name).config_class(**(SMALL | more))
        with torch.random.fork_rng():
            torch.manual_seed(6)
            getattr(transformers, name)(config).save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file)).save_pretrained(folder)
        return str(folder)

    return write


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer_file):
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny"), tokenizer_file))


@pytest.fixture(scope="module")
def exact(tiny):
    """The tiny model as transformers has it, in float64."""
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64).eval()


@pytest.fixture(scope="module")
def loaded(tiny):
    """The tiny model in this process, in float32, and with the attention of float64."""
    tokenizer = LocalTokenizer("tiny", tiny)
    return {
        dtype: local_model.LocalModel(tokenizer, Compute("cpu", dtype), 64)
        for dtype in ("float32", "float64")
    }


@torch.inference_mode()
def reference(model, prompt, spans):
    """The totals by a pass of the whole prompt for each response, with an explicit mask.

    The rows of the response stand once more behind the prompt: those see no hidden token, and in
    the place of the response's own tokens each other.
    """
    totals = []
    for start, end in prompt.ranges:
        begin, last, length = start - 1, end - 1, len(prompt.tokens)
        rows = torch.arange(begin, last)
        sees = torch.ones(length + len(rows), length + len(rows), dtype=torch.bool).tril()
        sees[length:, begin:length] = False
        for first, until in spans:
            for token in range(first, until):
                if token < last:
                    sees[length:, token if token < begin else length + token - begin] = False
        sees.fill_diagonal_(True)
        ids = torch.tensor(prompt.tokens)
        positions = torch.cat([torch.arange(length), rows])
        logits = model(
            input_ids=ids[positions][None],
            position_ids=positions[None],
            attention_mask=sees[None, None],
            use_cache=False,
        ).logits[0, length:]
        values = logits.double().log_softmax(1).gather(1, ids[rows + 1, None])
        totals.append(values.sum().item())
    return totals


def asked(length, *ranges, seed=1):
    tokens = random.Random(seed).choices(range(3, 400), k=length)
    return WirePrompt(tuple(tokens), (), ranges, tuple(map(str, range(len(ranges)))))


PROMPT = asked(150, (40, 52), (90, 91), (120, 150))
HIDDEN = ([(10, 20)], [(10, 20), (60, 70)], [(60, 75)], [(0, 30), (20, 39)], [(145, 150)], [])
ROWS = 2 * 12 + 4 * 1 + 5 * 30
"""Rows of each response, for as many sets of hidden tokens as differ before its last one."""


def never():
    return False


def agree(model, prompt, hidden, found, **tolerance):
    for spans, its in zip(hidden, found, strict=True):
        expected = reference(model, prompt, spans)
        assert [it.total for it in its] == [math.fsum(it.values) for it in its]
        assert [it.total for it in its] == pytest.approx(expected, **(tolerance or {"abs": 1e-3}))


async def check(folder, prompt, hidden, **table):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    async with aclosing(LocalScorer({"model": folder, "device": "cpu", **table})) as scorer:
        result = await scorer.knock_out(prompt, hidden)
    agree(model, prompt, hidden, result.ranges)
    return result.computed_tokens


# -- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
async def test_totals_are_those_of_a_mask_over_the_whole_prompt(name, written):
    assert await check(written(name, **MODELS[name]), PROMPT, HIDDEN) == 149 + ROWS


spans = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 40)), max_size=3).map(
    lambda drawn: [(start, min(start + length, 90)) for start, length in drawn]
)
ranges = st.lists(st.tuples(st.integers(1, 85), st.integers(1, 30)), min_size=1, max_size=3).map(
    lambda drawn: [(start, min(start + length, 90)) for start, length in drawn]
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    hidden=st.lists(spans, min_size=1, max_size=4),
    ranges=ranges,
    chunk=st.sampled_from([3, 17, 64, 1024]),
    cells=st.sampled_from([1, 200, 2**24]),
    scores=st.sampled_from([1, 2**28]),
)
def test_any_spans_and_ranges_in_any_chunks_give_the_totals_of_the_mask(
    dtype, hidden, ranges, chunk, cells, scores, loaded, exact
):
    model, prompt = loaded[dtype], asked(90, *ranges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model._chunks, "tokens", chunk)
        patch.setattr(knock_out, "MASK_CELLS", cells)
        patch.setattr(attention, "SCORES_BYTES", scores)
        found, _ = model.knock_out(prompt, hidden, never)
    agree(exact, prompt, hidden, found)


def test_with_nothing_hidden_or_only_later_tokens_totals_are_the_baselines(loaded):
    model = loaded["float32"]
    expected, _ = model.score(PROMPT, never)
    hidden = [[], [(7, 7)], [(150, 150)], [(149, 150)], [(148, 150)]]
    found, computed = model.knock_out(PROMPT, hidden, never)
    assert computed == 0
    assert found == [expected] * 5
    [[first, second, _]], _ = model.knock_out(PROMPT, [[(90, 119)]], never)
    assert [first.total, second.total] == [it.total for it in expected[:2]]


def test_a_response_before_which_all_is_hidden_is_as_if_it_stood_alone(loaded, exact):
    prompt = asked(60, (40, 60), seed=7)
    [[found]], computed = loaded["float64"].knock_out(prompt, [[(0, 39)]], never)
    ids, rows = torch.tensor([prompt.tokens[39:]]), torch.arange(20)
    with torch.inference_mode():
        logits = exact(input_ids=ids, use_cache=False).logits[0, :-1]
    alone = logits.log_softmax(1)[rows, ids[0, 1:]].sum().item()
    assert found.total == pytest.approx(alone, abs=1e-3)
    assert computed == 59 + 20


def test_the_same_spans_are_computed_once(loaded):
    model, prompt = loaded["float32"], asked(80, (60, 80), (60, 80), seed=5)
    model.score(prompt, never)
    hidden = [[(5, 9)], [(5, 7), (7, 9)], [(6, 9), (5, 8)]]
    found, computed = model.knock_out(prompt, hidden, never)
    assert computed == 20
    assert len({its[column].total for its in found for column in range(2)}) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
async def test_in_half_as_many_bits_totals_are_as_near_as_they_allow(dtype, tiny, exact):
    async with aclosing(LocalScorer({"model": tiny, "dtype": dtype})) as scorer:
        await scorer.score([PROMPT])
        result = await scorer.knock_out(PROMPT, HIDDEN)
    # The baseline is not computed again: that measures the noise, where it is asked for.
    assert result.computed_tokens == ROWS
    agree(exact, PROMPT, HIDDEN, result.ranges, abs=1.0, rel=0.02)


async def test_a_model_that_accelerate_spreads_hides_tokens_as_any_other(
    tiny, exact, monkeypatch, tmp_path
):
    parts = dict.fromkeys(("embed_tokens", "layers.0", "norm", "rotary_emb"), "cpu")
    parts = {f"model.{name}": place for name, place in (parts | {"layers.1": "disk"}).items()}
    spread = {"device_map": parts | {"lm_head": "cpu"}, "offload_folder": str(tmp_path)}
    monkeypatch.setattr(devices, "placement", lambda *_: spread)
    async with aclosing(LocalScorer({"model": tiny})) as scorer:
        found = (await scorer.knock_out(PROMPT, HIDDEN)).ranges
    agree(exact, PROMPT, HIDDEN, found)


@pytest.mark.parametrize("cache_mb", [0, 64])
async def test_the_prompt_is_computed_where_it_is_not_cached(cache_mb, tiny):
    async with aclosing(LocalScorer({"model": tiny, "cache_mb": cache_mb})) as scorer:
        first = await scorer.knock_out(PROMPT, HIDDEN)
        second = await scorer.knock_out(PROMPT, HIDDEN)
    assert first.computed_tokens == 149 + ROWS
    assert second.computed_tokens == ROWS + (0 if cache_mb else 149)
    assert first.ranges == second.ranges


async def test_scores_afterwards_are_the_same_to_the_bit(tiny):
    other = asked(150, (100, 150), seed=2)
    prompts = [PROMPT, asked(150, (120, 150)), other, asked(100, (20, 100))]
    async with aclosing(LocalScorer({"model": tiny})) as scorer:
        expected = [(await scorer.score([it])) for it in prompts]
    async with aclosing(LocalScorer({"model": tiny})) as scorer:
        found = []
        for it in prompts:
            found.append(await scorer.score([it]))
            await scorer.knock_out(PROMPT, HIDDEN)
    assert found == expected


# -- chunks, memory and cancelling ----------------------------------------------------------------


def test_no_pass_has_more_rows_or_a_larger_mask_than_fits(monkeypatch):
    monkeypatch.setattr(knock_out, "MASK_CELLS", 1000)
    chance = random.Random(3)
    starts = [chance.randrange(1, 400) for _ in range(20)]
    wanted = {
        ((start, start + chance.randrange(1, 80)), ((first, first + 1),))
        for start in starts
        for first in range(chance.randrange(12))
    }
    done = []
    for chunk in chunked(wanted, 50):
        assert sum(len(list(it.rows())) for it in chunk) <= 50
        assert len(chunk) == len(chunk[0].hidden) == 1 or (
            sum(len(it.hidden) * it.last for it in chunk) <= 1000
        )
        done += [
            ((it.begin + 1, it.end + 1), spans)
            for it in chunk
            for spans in it.hidden
            if it.last == it.end
        ]
    assert sorted(done) == sorted(wanted)


def test_spans_that_touch_or_overlap_are_one():
    assert merged([(5, 9), (1, 3), (3, 4), (8, 12), (20, 20), (30, 40)], 35) == (
        (1, 4),
        (5, 12),
        (30, 35),
    )
    assert merged([(5, 9)], 5) == ()


async def test_out_of_memory_passes_are_smaller_and_what_is_done_is_kept(tiny, exact, monkeypatch):
    async with aclosing(LocalScorer({"model": tiny})) as scorer:
        await scorer.knock_out(PROMPT, [[]])
        model = scorer._loaded._model
        honest, seen = model.forward, []

        def forward(*args, input_ids, **more):
            seen.append(input_ids.shape[1])
            if input_ids.shape[1] == 60:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return honest(*args, input_ids=input_ids, **more)

        monkeypatch.setattr(model, "forward", forward)
        monkeypatch.setattr(scorer._loaded._chunks, "tokens", 70)
        result = await scorer.knock_out(PROMPT, HIDDEN)
    agree(exact, PROMPT, HIDDEN, result.ranges)
    # Caches are freed first, then chunks are halved; the prompt is computed anew each time.
    assert seen[:6] == [58, 60, 70, 70, 9, 60]
    assert seen[6:] == [35, 35, 35, 35, 9, 30, 30, 30, 30]


@pytest.mark.parametrize("error", [RuntimeError("broken"), torch.OutOfMemoryError("out of memory")])
async def test_after_an_error_the_models_own_attention_is_back(error, tiny, monkeypatch):
    async with aclosing(LocalScorer({"model": tiny})) as scorer:
        [expected] = (await scorer.score([PROMPT])).ranges
        await scorer.knock_out(PROMPT, [])
        # No smaller one is tried.
        monkeypatch.setattr(scorer._loaded._chunks, "tokens", chunks.FEWEST_TOKENS)
        monkeypatch.setattr(knock_out, "attend_pieces", raising(error))
        with pytest.raises((RuntimeError, ScorerError)):
            await scorer.knock_out(PROMPT, HIDDEN)
        assert scorer._loaded._model.config._attn_implementation == "mindscore_causal"
        assert (await scorer.score([PROMPT])).ranges == [expected]


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


async def test_cancelled_it_ends_after_the_pass_and_scores_go_on(tiny, monkeypatch):
    async with aclosing(LocalScorer({"model": tiny})) as scorer:
        [expected] = (await scorer.score([PROMPT])).ranges
        await scorer.knock_out(PROMPT, [])
        passes, loop, work = [], asyncio.get_running_loop(), None
        honest = attention.attend_pieces

        def attend(*arguments):
            if not passes:
                loop.call_soon_threadsafe(work.cancel)
            passes.append(arguments)
            # The thread goes on once the cancelling has been seen.
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result()
            return honest(*arguments)

        monkeypatch.setattr(knock_out, "attend_pieces", attend)
        monkeypatch.setattr(scorer._loaded._chunks, "tokens", 12)
        work = asyncio.ensure_future(scorer.knock_out(PROMPT, HIDDEN))
        with pytest.raises(asyncio.CancelledError):
            await work
        assert len(passes) == 2  # the layers of one pass
        assert scorer._loaded._model.config._attn_implementation == "mindscore_causal"
        assert (await scorer.score([PROMPT])).ranges == [expected]


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
async def test_a_model_that_cannot_hide_tokens_says_so(name, written):
    more, said = REFUSED[name]
    async with aclosing(LocalScorer({"model": written(name, **more)})) as scorer:
        [expected] = (await scorer.score([PROMPT])).ranges
        with pytest.raises(ScorerError, match=rf"no tokens can be hidden .*{said}"):
            await scorer._hide(PROMPT, HIDDEN)
        assert ScorerCapabilities.of(scorer).knock_out is None
        [again] = (await scorer.score([PROMPT])).ranges
        assert [it.total for it in again] == pytest.approx([it.total for it in expected])


async def test_a_model_whose_masked_values_are_wrong_is_found_out_at_first_use(tiny, monkeypatch):
    honest = knock_out.attend_pieces
    wrong = {
        "nothing": lambda *it: honest(*it) * 1.2,
        # All that stands before the rows is seen, hidden or not.
        "everything": lambda kernel, query, key, value, pieces, scale, bias: honest(
            kernel, query, key, value, [(*it[:2], None) for it in pieces], scale, bias
        ),
    }
    for what, attend in wrong.items():
        monkeypatch.setattr(knock_out, "attend_pieces", attend)
        async with aclosing(LocalScorer({"model": tiny})) as scorer:
            assert scorer.knock_out is not None
            with pytest.raises(ScorerError, match=f"with {what} hidden") as refused:
                await scorer.knock_out(PROMPT, HIDDEN)
            # Its tokens are none that were spent.
            assert not refused.value.arrived
            assert scorer.knock_out is None


@pytest.mark.parametrize(
    ("prompt", "hidden", "said"),
    [
        (PROMPT, [[(140, 151)]], r"\(140, 151\) is not a span in a prompt of 150 tokens"),
        (PROMPT, [[(-1, 3)]], r"\(-1, 3\) is not a span"),
        (PROMPT, [[(9, 3)]], r"\(9, 3\) is not a span"),
        (asked(CONTEXT_LENGTH + 9, (5, CONTEXT_LENGTH + 9)), [], "reads at most 256"),
        (WirePrompt((1,) * 9, (Image("image/png", b""),), ((3, 9),), ("r",)), [], "no images"),
    ],
)
async def test_what_cannot_be_asked_is_refused(prompt, hidden, said, tiny):
    async with aclosing(LocalScorer({"model": tiny})) as scorer:
        with pytest.raises(ScorerError, match=said):
            await scorer.knock_out(prompt, hidden)
        assert scorer.knock_out is not None


async def test_a_prompt_whose_positions_depend_on_its_length_is_refused(tiny, monkeypatch):
    async with aclosing(LocalScorer({"model": tiny})) as scorer:
        await scorer.score([PROMPT])
        monkeypatch.setattr(scorer._loaded, "_longest_in_chunks", 100)
        with pytest.raises(ScorerError, match=r"a prompt of 150 tokens: .* beyond 100") as refused:
            await scorer.knock_out(PROMPT, HIDDEN)
        assert not refused.value.arrived


async def test_without_ranges_or_spans_there_is_nothing_to_compute(tiny):
    async with aclosing(LocalScorer({"model": tiny})) as scorer:
        none = await scorer.knock_out(asked(50), HIDDEN)
        assert (none.ranges, none.computed_tokens) == ([[]] * len(HIDDEN), 0)
        assert (await scorer.knock_out(PROMPT, [])).ranges == []


# -- on CUDA, as far as that can be seen without ---------------------------------------------------


@pytest.mark.parametrize(("dtype", "name"), [("bfloat16", "half"), ("float32", "efficient")])
def test_on_cuda_the_kernels_take_the_masks(dtype, name):
    copies = knock_out.Copies(60, 60, 70, 70, (((3, 9),), ((20, 41), (62, 64)), ()))
    with torch.device("meta"):
        keys = torch.empty(1, 2, 60, 16, dtype=getattr(torch, dtype))
        block = knock_out._block(copies, [32, 28], keys.dtype)
        pieces = block.pieces([(keys[:, :, :32],) * 2, (keys[:, :, 32:],) * 2])
        query = torch.empty(3, 8, 10, 16, dtype=keys.dtype)
        own = query[:, :2]
        kernel = attention.KERNELS[f"mindscore_causal_{name}"]
        found = attention.attend_pieces(kernel, query, own, own, pieces, None, block.own_bias)
    assert (found.shape, found.dtype) == (query.shape, query.dtype)
    biases = [bias for *_, bias in block.cuts if bias is not None]
    assert biases
    # The kernel reads 16 bytes at once.
    for bias in (*biases, block.own_bias):
        assert bias.stride(-2) * bias.element_size() % 16 == 0
