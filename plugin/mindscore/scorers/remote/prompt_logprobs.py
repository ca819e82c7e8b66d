"""Check a server's log-probabilities of a prompt's tokens, and sum them over its ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from mindhooks import RangeScore, ScorerError, WirePrompt
from mindscore.measure.divergence import ROUNDING, implausible

CLAMPED = -9999.0
"""The value that servers write for minus infinity."""


def refuse_images(prompt: WirePrompt) -> None:
    """Refuse a prompt with images: the server expands their placeholders and so moves positions.

    Raises:
        ScorerError: says what to do.
    """
    if prompt.images:
        raise ScorerError(
            "this prompt holds images, which stock servers do not score by position: "
            'use server.scorer = "score", or a conversation without images'
        )


def scored_part(prompt: WirePrompt) -> WirePrompt:
    """Return the prompt up to the end of its last range, which depends on nothing after it."""
    return replace(prompt, tokens=prompt.tokens[: max(end for _, end in prompt.ranges)])


def expect_entries(field: str, expected: int, got: int, hint: str) -> None:
    """Require one entry per token.

    Raises:
        ScorerError: names the field, both numbers and what to do.
    """
    if got != expected:
        raise ScorerError(
            f"{field}: expected {expected} entries, got {got}: "
            f"the server has cut the prompt, or does not score all of it; {hint}"
        )


def wrong_id(field: str, expected: int, got: str) -> ScorerError:
    """Return the error for an entry that is of another token; ``got`` is safe to show."""
    return ScorerError(
        f"{field}: is of token {got}, not of the prompt's token {expected}: the answer is of "
        "another prompt, or out of step with it; update the server, or use another scorer"
    )


def range_scores(
    field: Callable[[int], str],
    ranges: Sequence[tuple[int, int]],
    values: Sequence[float | None],
    first: int = 0,
) -> list[RangeScore]:
    """Return each range's total and values, in nats.

    ``values[i]`` is of the prompt's token ``first + i``; ``field(i)`` is its path in the answer.

    Raises:
        ScorerError: a value is missing, or is not a log-probability.
    """
    scores = []
    for start, end in ranges:
        wanted = values[start - first : end - first]
        sound = [it for it in wanted if it is not None and CLAMPED < it <= ROUNDING]
        if len(sound) != len(wanted):
            wrong = next(i for i, it in enumerate(wanted) if _fault(it))
            raise ScorerError(f"{field(start - first + wrong)}: {_fault(wanted[wrong])}")
        scores.append(RangeScore(math.fsum(sound), tuple(sound)))
    return scores


def _fault(value: float | None) -> str | None:
    if value is None:
        return (
            "is null: the server has no log-probability for it; is it started with a mode or "
            "a backend that does not score prompts?"
        )
    if wrong := implausible(value):
        return wrong
    if value <= CLAMPED:
        return f"{value} stands for minus infinity: the model or its number format is broken"
    return None
