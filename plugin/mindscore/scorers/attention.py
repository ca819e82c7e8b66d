"""Attention of tokens that follow a KV cache, without a mask.

The usual way hands the kernel an explicit mask of (new tokens x all tokens), half of which a causal
kernel would not have computed. Here each new token attends to what is cached, all of it, and to the
new tokens, causally, in two calls; the two results are put together by their normalisers:
``softmax`` over a union is the mean of the parts' results, weighted by the sums of their
exponentials (as in FlashAttention and ring attention). On a CPU only, whose kernel returns those.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface

NAME = "mindscore_causal"

_UNKNOWN = ("softcap", "s_aux", "position_bias", "sliding_window")


def is_available() -> bool:
    """Whether this torch has the kernel."""
    return hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Any, None]:
    """Causal attention of the last tokens of a sequence.

    ``query`` is (batch, heads, new tokens, size). ``key`` and ``value`` are (batch, groups of
    heads, tokens, size), of the new tokens where ``key.before`` has the pieces before them, else of
    all. The result is (batch, new tokens, heads, size).

    Raises:
        NotImplementedError: the model asks for more than plain causal attention.
    """
    del module
    if attention_mask is not None or any(more.get(name) is not None for name in _UNKNOWN):
        raise NotImplementedError("only plain causal attention")
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    batch, heads, new, size = query.shape
    groups, cached = key.shape[1], key.shape[2] - new
    before = getattr(key, "before", [(key[:, :, :cached], value[:, :, :cached])] if cached else ())
    key_new, value_new = (
        it[:, :, cached:].repeat_interleave(heads // groups, dim=1) for it in (key, value)
    )
    output, norm = kernel(query, key_new, value_new, 0.0, True, scale=scaling)
    # Heads that share keys stand one behind the other: cached keys are not copied for each.
    stacked = query.reshape(batch, groups, heads // groups * new, size)
    for keys, values in before:
        found, its_norm = kernel(stacked, keys, values, 0.0, False, scale=scaling)
        its_norm = its_norm.reshape(norm.shape)
        share = torch.sigmoid(its_norm - norm)[..., None].to(output.dtype)
        output = torch.lerp(output, found.reshape(output.shape), share)
        norm = torch.logaddexp(norm, its_norm)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)
