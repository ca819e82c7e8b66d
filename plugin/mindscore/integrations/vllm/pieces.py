"""A prompt in pieces: what lies between the scored ranges need not be computed where it is cached.

One request computes all from its first scored row on. Where the cache has the rest of the prompt
too, a request for each range computes less, so the first range asks alone, and shows which it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mindscore.integrations.vllm.protocol import Span
from mindscore.integrations.vllm.rows import Rows, score_rows

AskTokens = Callable[[Sequence[int], dict[str, Any]], Awaitable[Any]]
"""Asks vLLM for a prompt with these arguments of ``SamplingParams``; returns its output."""

Found = tuple[dict[int, float], int]
"""The value of each position, and how many tokens were computed."""


MIN_SAVING = 8
"""Tokens between two ranges for which a request of its own pays."""

SAVING_SHARE = 4
"""How many times the tokens that are lost without a cached prompt must be saved with one."""


def block_of(config: Any) -> int | None:
    """Return how many tokens the prefix cache keeps together; ``None`` to send prompts whole.

    ``config`` is a ``VllmConfig``. A limit to the queue would turn away the pieces of one prompt
    for being many, and each of several engines has a cache of its own, in which others' pieces are
    not found.
    """
    cache, scheduler = config.cache_config, config.scheduler_config
    limits = (scheduler.max_num_queued_reqs, scheduler.max_num_queued_tokens)
    is_shared = config.parallel_config.data_parallel_size == 1
    if not cache.enable_prefix_caching or limits != (None, None) or not is_shared:
        return None
    return int(cache.block_size)


def split_ranges(prompt_length: int, ranges: Sequence[Span], block: int) -> list[list[Span]]:
    """Return ``ranges`` in groups that are asked for apart, in order; one where that saves little.

    Without a cached prompt, the tokens of the first group that fill no block are computed twice.
    """
    groups: list[list[Span]] = []
    reached = saved = 0
    for start, end in sorted(ranges):
        between = _aligned(start, block) - reached
        if not groups or between >= MIN_SAVING:
            saved += between if groups else 0
            groups.append([])
        groups[-1].append((start, end))
        reached = max(reached, end)
    saved += prompt_length - reached
    if saved < SAVING_SHARE * (_end(groups[0]) % block):
        return [list(ranges)]
    return groups


async def score_prompt(
    prompt: Sequence[int], ranges: Sequence[Span], ask: AskTokens, *, by_id: bool, block: int | None
) -> Found:
    """Return the value of each scored position, and how many tokens were computed.

    ``block`` is how many tokens the prefix cache keeps together; ``None`` where a prompt is to be
    sent whole.

    Raises:
        RowsError: vLLM's answer lacks a row.
    """

    async def score(group: Sequence[Span], length: int) -> Found:
        tokens = prompt[:length]

        async def ask_once(arguments: dict[str, Any]) -> Any:
            return await ask(tokens, arguments)

        values, cached = await score_rows(Rows(tokens, group), ask_once, by_id=by_id)
        return values, length - cached

    first, *others = split_ranges(len(prompt), ranges, block) if block else [list(ranges)]
    if not block or not others:
        return await score(ranges, len(prompt))
    end = _end(first)
    values, computed = await score(first, end)
    before = _aligned(first[0][0], block)
    if before == 0 or end - computed < before:
        others = [[span for group in others for span in group]]
    tasks = [asyncio.ensure_future(score(group, _end(group))) for group in others]
    try:
        for more, its_computed in await asyncio.gather(*tasks):
            values.update(more)
            computed += its_computed
    finally:
        for task in tasks:
            task.cancel()
    return values, computed


def _aligned(start: int, block: int) -> int:
    """Return how many tokens before the row that scores ``start`` are in whole blocks."""
    return (start - 1) // block * block


def _end(ranges: Sequence[Span]) -> int:
    return max(end for _, end in ranges)
