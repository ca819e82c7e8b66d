"""Causal attention to keys in several pieces, without a mask.

A mask costs the fast kernels: behind a KV cache, a model's own attention needs one. Here, each
piece is attended to by itself, and the results are merged by the log-sum-exp of their scores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface

Kernel = Callable[[Any, Any, Any, bool, "float | None"], tuple[Any, Any]]
"""Attention of a query to keys and values, causal or not, with the scale of the scores.

Each is (batch, heads, tokens, size). It returns the output and the natural log-sum-exp of each
query's scores, (batch, heads, tokens).
"""

_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "sliding_window")


def _cpu_flash(query: Any, key: Any, value: Any, causal: bool, scale: float | None) -> Any:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, key, value, 0.0, causal, scale=scale)


def _flash(query: Any, key: Any, value: Any, causal: bool, scale: float | None) -> Any:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention
    return kernel(query, key, value, 0.0, causal, False, scale=scale)[:2]


def _efficient(query: Any, key: Any, value: Any, causal: bool, scale: float | None) -> Any:
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    output, norm, *_ = kernel(query, key, value, None, True, 0.0, causal, scale=scale)
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
    if attention_mask is not None or any(more.get(name) is not None for name in _UNSUPPORTED):
        raise NotImplementedError("only plain causal attention")
    batch, heads, new, size = query.shape
    groups, cached = key.shape[1], key.shape[2] - new
    before = getattr(key, "before", [(key[:, :, :cached], value[:, :, :cached])] if cached else ())
    key_new, value_new = (
        it[:, :, cached:].repeat_interleave(heads // groups, dim=1) for it in (key, value)
    )
    output, norm = kernel(query, key_new, value_new, True, scaling)
    # Heads that share keys are stacked, so that cached keys are not copied for each.
    stacked = query.reshape(batch, groups, heads // groups * new, size)
    for keys, values in before:
        found, its_norm = kernel(stacked, keys, values, False, scaling)
        its_norm = its_norm.reshape(norm.shape)
        share = torch.sigmoid(its_norm - norm)[..., None].to(output.dtype)
        output = torch.lerp(output, found.reshape(output.shape), share)
        norm = torch.logaddexp(norm, its_norm)
    return output.transpose(1, 2).contiguous(), None


for _name, _kernel in KERNELS.items():
    AttentionInterface.register(_name, partial(attend, _kernel))
