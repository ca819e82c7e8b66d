"""Attention to keys in pieces: the same as to all of them at once, by each of torch's kernels."""

import inspect
import random
from types import SimpleNamespace

import pytest
import torch

from mindscore.scorers.local import attention
from mindscore.scorers.local.attention import KERNELS, attend

CUDA = [name for name in KERNELS if name != "mindscore_causal"]
MODULE = SimpleNamespace()


def exact(query, key, value, causal, scale, bias=None):
    """The output and log-sum-exp by the definition; of causal attention, the last keys' rows."""
    scores = query @ key.transpose(2, 3) * (scale or query.shape[3] ** -0.5)
    if bias is not None:
        scores = scores + bias
    if causal:
        behind = key.shape[2] - query.shape[2]
        hidden = torch.ones(scores.shape[2:], dtype=torch.bool).triu(behind + 1)
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores.softmax(3) @ value, scores.logsumexp(3)


def tensors(heads, groups, new, lengths, size=16, seed=0):
    """A query of ``new`` tokens, and the pieces of keys and values, the last of the new tokens."""
    generator = torch.Generator().manual_seed(seed)
    made = lambda heads, length: torch.randn(1, heads, length, size, generator=generator)  # noqa: E731
    pieces = [(made(groups, length), made(groups, length)) for length in (*lengths, new)]
    return made(heads, new), pieces


def attended(kernel, query, pieces, scale=None):
    *before, (key, value) = pieces
    # As a cache's layer hands them over.
    key.before = before
    output, weights = attend(kernel, MODULE, query, key, value, None, scaling=scale)
    assert weights is None
    return output


def whole(query, pieces, scale=None):
    key, value = (torch.cat(parts, 2) for parts in zip(*pieces, strict=True))
    shared = query.shape[1] // key.shape[1]
    key, value = (it.repeat_interleave(shared, dim=1) for it in (key, value))
    return exact(query, key, value, True, scale)[0].transpose(1, 2)


@pytest.mark.parametrize("kernel", [KERNELS["mindscore_causal"], exact])
@pytest.mark.parametrize("seed", range(12))
def test_attention_to_any_pieces_is_that_to_all_of_them(kernel, seed):
    chance = random.Random(seed)
    groups = chance.choice([1, 2, 3])
    lengths = [chance.choice([1, 5, 32, 33, 100]) for _ in range(chance.randrange(5))]
    new, shared = chance.choice([1, 2, 31, 64, 70]), chance.choice([1, 2, 4])
    scale = chance.choice([None, 0.3])
    query, pieces = tensors(groups * shared, groups, new, lengths, seed=seed)
    found = attended(kernel, query, pieces, scale)
    torch.testing.assert_close(found, whole(query, pieces, scale), atol=1e-5, rtol=1e-5)


def test_keys_in_one_piece_with_those_before_them_are_split():
    query, pieces = tensors(4, 2, 7, [20])
    key, value = (torch.cat(parts, 2) for parts in zip(*pieces, strict=True))
    found, _ = attend(exact, MODULE, query, key, value, None)
    torch.testing.assert_close(found, whole(query, pieces), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_as_many_bits_it_is_as_near_as_they_allow(dtype):
    query, pieces = tensors(4, 2, 33, [64, 50])
    expected = whole(query, pieces)
    half = [(key.to(dtype), value.to(dtype)) for key, value in pieces]
    found = attended(KERNELS["mindscore_causal"], query.to(dtype), half)
    assert found.dtype == dtype
    assert (found.float() - expected).abs().mean() < 0.01 * expected.abs().mean()


@pytest.mark.parametrize(
    "more", [{"sliding_window": 5}, {"softcap": 3.0}, {"s_aux": 1}, {"position_bias": 1}]
)
def test_what_is_not_plain_causal_attention_is_refused(more):
    query, [(key, value)] = tensors(2, 2, 4, [])
    with pytest.raises(NotImplementedError):
        attend(exact, MODULE, query, key, value, None, **more)
    with pytest.raises(NotImplementedError):
        attend(exact, MODULE, query, key, value, torch.ones(4, 4))


# -- on CUDA, as far as that can be seen without: torch's own shapes and formats of its kernels ----


@pytest.mark.parametrize("kernel", CUDA)
@pytest.mark.parametrize("lengths", [[], [300], [1, 64, 97]])
@pytest.mark.parametrize("new", [1, 31, 70])
def test_on_cuda_the_kernels_return_what_is_merged(kernel, new, lengths):
    dtype = torch.bfloat16 if kernel == "mindscore_causal_half" else torch.float32
    with torch.device("meta"):
        query = torch.empty(1, new, 8, 64, dtype=dtype).transpose(1, 2)
        pieces = [
            tuple(torch.empty(1, 2, it, 64, dtype=dtype) for _ in range(2))
            for it in (*lengths, new)
        ]
        found = attended(KERNELS[kernel], query, pieces)
    assert (found.shape, found.dtype) == ((1, new, 8, 64), dtype)
    assert found.is_contiguous()


def test_the_padding_of_a_kernels_log_sum_exp_is_cut_off(monkeypatch):
    def padded(query, key, value, bias, wanted, dropout, causal, *, scale):
        assert (bias, wanted, dropout) == (None, True, 0.0)
        output, norm = exact(query, key, value, causal, scale)
        more = -norm.shape[2] % 32
        return output, torch.nn.functional.pad(norm, (0, more), value=torch.nan), None, None

    aten = SimpleNamespace(_scaled_dot_product_efficient_attention=padded)
    monkeypatch.setattr(attention.torch.ops, "aten", aten)
    query, pieces = tensors(4, 2, 33, [40, 7])
    found = attended(KERNELS["mindscore_causal_efficient"], query, pieces)
    torch.testing.assert_close(found, whole(query, pieces), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "first"), [("bfloat16", "half"), ("float32", "efficient")])
def test_a_model_runs_behind_a_cache_on_cuda(dtype, first):
    from transformers import LlamaConfig, LlamaForCausalLM

    from mindscore.scorers.local.kv_cache import PrefixCaches

    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation=attention.choices("cuda", dtype)[0],
    )
    assert config._attn_implementation == f"mindscore_causal_{first}"
    with torch.device("meta"), torch.inference_mode():
        model = LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
        caches = PrefixCaches(config, 2**30, joins=False, joins_new=True)
        cache = caches.empty().cache
        takes = inspect.signature(model.forward).parameters
        name = "cache" if "cache" in takes else "past_key_values"
        for length in (70, 33, 1):
            ids, kept = torch.zeros(1, length, dtype=torch.long), torch.zeros(1, dtype=torch.long)
            output = model(input_ids=ids, logits_to_keep=kept, **{name: cache})
        assert output.logits.shape == (1, 1, 400)
        assert output.logits.device.type == "meta"
        assert [it.get_seq_length() for it in cache.layers] == [104, 104]
        for layer in cache.layers:
            layer.join_new()
            assert [keys.shape[2] for keys, _ in layer.pieces] == [104]


def test_each_format_of_a_device_has_kernels_that_take_it():
    assert attention.choices("cuda", "float32") == ["mindscore_causal_efficient"]
    assert attention.choices("cuda", "float16")[0] == "mindscore_causal_half"
    assert attention.choices("cpu", "float32") == ["mindscore_causal"]
    assert attention.choices("mps", "bfloat16") == []
    assert {name for it in attention._CHOICES.values() for name in it} == set(KERNELS)
