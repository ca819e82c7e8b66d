"""Build prompts, cut after the last response that is scored."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from mindhooks import Context, WirePrompt
from mindscore.measure.memories import Skip, responses, skip_none, whole


def prompt_for(context: Context, window: range, skip: Skip, asked: Collection[str]) -> WirePrompt:
    """Return the window's prompt without what ``skip`` names, for the responses ``asked``.

    It ends with the last of them: in a causal model nothing depends on later tokens.
    """
    ends = [index for id_, index in responses(context, window).items() if id_ in asked]
    last = max(ends, default=window.start - 1)
    prompt = context.wire_prompt(range(window.start, last + 1), skip)
    narrowed = ask_only(prompt, asked)
    # A response without images is behind all images of the prompt: it may be cut there.
    return narrowed if not ends or context.conversation[last].images else _cut(narrowed)


def beginning(context: Context) -> tuple[int, ...]:
    """Return the token ids of the whole conversation, with all memories."""
    return context.wire_prompt(whole(context), skip_none).tokens


def ask_only(prompt: WirePrompt, node_ids: Collection[str]) -> WirePrompt:
    """Return the prompt with the ranges of ``node_ids`` alone, cut after the last of them.

    A prompt with images is not cut: their positions in it are not known.
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
    """Return the number of ids with which both prompts begin."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))
