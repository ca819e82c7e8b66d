"""The prompts that are sent: no longer, and asking for no more, than what is to be known."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from mindhooks import Context, WirePrompt
from mindscore.measure.memories import Skip, responses, skip_none, whole


def prompt_for(context: Context, window: range, skip: Skip, asked: Collection[str]) -> WirePrompt:
    """The window's prompt without what ``skip`` names, up to the last of the responses ``asked``.

    Of a causal model no token is wanted that comes after the last response asked for.
    """
    ends = [index for id_, index in responses(context, window).items() if id_ in asked]
    last = max(ends, default=window.start - 1)
    prompt = context.wire_prompt(range(window.start, last + 1), skip)
    narrowed = ask_only(prompt, asked)
    # Images may stand anywhere in a node, but not behind a response that has none of its own.
    return narrowed if not ends or context.conversation[last].images else _cut(narrowed)


def beginning(context: Context) -> tuple[int, ...]:
    """The ids that every prompt of the whole conversation begins with, and all that follow."""
    return context.wire_prompt(whole(context), skip_none).tokens


def ask_only(prompt: WirePrompt, node_ids: Collection[str]) -> WirePrompt:
    """The same prompt with the ranges of ``node_ids`` alone, cut after the last of them.

    One with images is not cut: which of them stand in what is left cannot be told.
    """
    kept = [
        (span, id_)
        for span, id_ in zip(prompt.ranges, prompt.node_ids, strict=True)
        if id_ in node_ids
    ]
    narrowed = replace(
        prompt, ranges=tuple(span for span, _ in kept), node_ids=tuple(id_ for _, id_ in kept)
    )
    return narrowed if prompt.images else _cut(narrowed)


def _cut(prompt: WirePrompt) -> WirePrompt:
    last = max((end for _, end in prompt.ranges), default=0)
    return replace(prompt, tokens=prompt.tokens[:last])


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two prompts begin with alike."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))
