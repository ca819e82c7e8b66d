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


def split_ranges(ranges: Sequence[Span], block: int) -> list[list[Span]]:
    """Return ``ranges`` in groups, in order, a whole block of the cache or more apart."""
    groups: list[list[Span]] = []
    reached = 0
    for start, end in sorted(ranges):
        if not groups or _aligned(start, block) - reached >= block:
            groups.append([])
        groups[-1].append((start, end))
        reached = max(reached, end)
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

    first, *others = split_ranges(ranges, block) if block else [list(ranges)]
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
