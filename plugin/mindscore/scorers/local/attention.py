"""Causal attention to keys in several pieces, without a mask.

A mask costs the fast kernels: behind a KV cache, a model's own attention needs one. Here, each
piece is attended to by itself, and the results are merged by the log-sum-exp of their scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface

Kernel = Callable[[Any, Any, Any, bool, "float | None", Any], tuple[Any, Any]]
"""Attention of a query to keys and values, causal or not, with the scale of the scores.

Each is (batch, heads, tokens, size). The last argument is added to the scores, (batch, heads, new
tokens, tokens), or ``None``. It returns the output and the natural log-sum-exp of each query's
scores, (batch, heads, tokens).
"""

_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "sliding_window")


def _cpu_flash(query: Any, key: Any, value: Any, causal: bool, scale: Any, bias: Any) -> Any:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, key, value, 0.0, causal, attn_mask=bias, scale=scale)


def _flash(query: Any, key: Any, value: Any, causal: bool, scale: Any, bias: Any) -> Any:
    if bias is not None:
        return _efficient(query, key, value, causal, scale, bias)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention
    return kernel(query, key, value, 0.0, causal, False, scale=scale)[:2]


def _efficient(query: Any, key: Any, value: Any, causal: bool, scale: Any, bias: Any) -> Any:
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    output, norm, *_ = kernel(query, key, value, bias, True, 0.0, causal, scale=scale)
    # Padded to the kernel's blocks.
    return output, norm[:, :, : query.shape[2]]


KERNELS: dict[str, Kernel] = {
    "mindscore_causal": _cpu_flash,
    "mindscore_causal_half": _flash,
    "mindscore_causal_efficient": _efficient,
}
"""Those of torch that return the log-sum-exp, by the name that transformers knows them by.

None has "flash" in its name: transformers would look for that library. cuDNN's kernel is not among
them: it compiles anew for each length."""

SCORES_BYTES = 2**28
"""What the scores of one block of queries may take, where no kernel of torch's is used."""


def by_definition(query: Any, key: Any, value: Any, causal: bool, scale: Any, bias: Any) -> Any:
    """Return what a ``Kernel`` does, on any device, block by block of the queries.

    Where it is causal, there are as many keys as queries.
    """
    batch, heads, new, size = query.shape
    found = []
    for rows in torch.arange(new).split(max(1, SCORES_BYTES // (4 * batch * heads * key.shape[2]))):
        block = slice(int(rows[0]), int(rows[-1]) + 1)
        scores = (query[:, :, block] @ key.transpose(2, 3)) * (scale or size**-0.5)
        # As transformers: at least float32 for the softmax.
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if bias is not None:
            scores = scores + bias[:, :, block]
        if causal:
            later = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device)
            scores = scores.masked_fill(later.triu(block.start + 1), -torch.inf)
        norm = scores.logsumexp(3)
        shares = (scores - norm[..., None]).exp().to(value.dtype)
        found.append((shares @ value, norm))
    outputs, norms = zip(*found, strict=True)
    return torch.cat(outputs, 2), torch.cat(norms, 2)


_HALF = ["mindscore_causal_half", "mindscore_causal_efficient"]
_CHOICES = {
    ("cpu", "float32"): ["mindscore_causal"],
    ("cpu", "bfloat16"): ["mindscore_causal"],
    ("cpu", "float16"): ["mindscore_causal"],
    ("cuda", "bfloat16"): _HALF,
    ("cuda", "float16"): _HALF,
    ("cuda", "float32"): ["mindscore_causal_efficient"],
}


def choices(device: str, dtype: str) -> list[str]:
    """Return the names to try on a kind of device, with weights of ``dtype``, the fastest first."""
    return _CHOICES.get((device, dtype), [])


def attend(
    kernel: Kernel,
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Any, None]:
    """Return the causal attention of the last tokens of a sequence.

    ``query`` is (batch, heads, new tokens, size). ``key`` and ``value`` are (batch, groups of
    heads, tokens, size), of the new tokens where ``key.before`` has the pieces before them, else of
    all. The result is (batch, new tokens, heads, size).

    Raises:
        NotImplementedError: the model asks for more than plain causal attention.
    """
    del module
    require_plain(attention_mask, more)
    new = query.shape[2]
    cached = key.shape[2] - new
    before = getattr(key, "before", [(key[:, :, :cached], value[:, :, :cached])] if cached else ())
    pieces = [(*piece, None) for piece in before]
    key, value = key[:, :, cached:], value[:, :, cached:]
    output = attend_pieces(kernel, query, key, value, pieces, scaling)
    return output.transpose(1, 2).contiguous(), None


def require_plain(attention_mask: Any, more: Mapping[str, Any]) -> None:
    """Raise ``NotImplementedError`` if a model asks for more than plain causal attention."""
    if attention_mask is not None or any(more.get(name) is not None for name in _UNSUPPORTED):
        raise NotImplementedError("only plain causal attention")


def attend_pieces(
    kernel: Kernel,
    query: Any,
    key: Any,
    value: Any,
    pieces: Iterable[tuple[Any, Any, Any]],
    scale: float | None,
    bias: Any = None,
) -> Any:
    """Return the attention to new tokens, causal, and to pieces before them, wholly.

    ``query`` is (batch, heads, new tokens, size), ``key`` and ``value`` (batch, groups of heads,
    new tokens, size). A piece is keys and values that the whole batch shares, (1, groups of heads,
    tokens, size), and what is added to the scores of each member of the batch, (batch, 1, 1,
    tokens), or ``None``. ``bias`` is added to the scores of the new tokens instead of the causal
    mask, (batch, 1, new tokens, new tokens). The result has the shape of ``query``.
    """
    batch, heads, new, size = query.shape
    groups = key.shape[1]
    key, value = (it.repeat_interleave(heads // groups, dim=1) for it in (key, value))
    if bias is not None:
        bias = bias.expand(-1, heads, -1, -1)
    output, norm = kernel(query, key, value, bias is None, scale, bias)
    # Heads that share keys are stacked, so that cached keys are not copied for each.
    stacked = query.reshape(batch, groups, heads // groups * new, size)
    for keys, values, hidden in pieces:
        if hidden is None:
            # So are the members of the batch.
            found, its_norm = kernel(_flat(stacked), keys, values, False, scale, None)
            found, its_norm = (
                it.unflatten(2, (batch, -1)).squeeze(0).transpose(0, 1) for it in (found, its_norm)
            )
        else:
            hidden = hidden.expand(-1, groups, stacked.shape[2], -1)
            keys, values = (it.expand(batch, -1, -1, -1) for it in (keys, values))
            found, its_norm = kernel(stacked, keys, values, False, scale, hidden)
        its_norm = its_norm.reshape(norm.shape)
        share = torch.sigmoid(its_norm - norm)[..., None].to(output.dtype)
        output = torch.lerp(output, found.reshape(output.shape), share)
        norm = torch.logaddexp(norm, its_norm)
    return output


def _flat(stacked: Any) -> Any:
    """Return (batch, groups, tokens, size) as (1, groups, batch x tokens, size)."""
    return stacked.transpose(0, 1).flatten(1, 2)[None]


for _name, _kernel in KERNELS.items():
    AttentionInterface.register(_name, partial(attend, _kernel))
