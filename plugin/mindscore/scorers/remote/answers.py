"""The answers of model servers: how large they may be, and the checks that all of them pass."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from msgspec import Struct

from mindhooks import RangeScore, ScorerError, WirePrompt
from mindscore.http.client import SMALL_ANSWER_BYTES
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


class Answer(NamedTuple):
    """A server's answer for one prompt; ``computed`` is ``None`` where it does not say."""

    scores: list[RangeScore]
    computed: int | None


class _Details(Struct):
    cached_tokens: int | None = None


class TokenUsage(Struct):
    """The tokens of a request."""

    prompt_tokens: int | None = None
    prompt_tokens_details: _Details | None = None

    @property
    def cached(self) -> int | None:
        """The tokens that came from a cache, or ``None`` where the server does not say."""
        details = self.prompt_tokens_details
        return details.cached_tokens if details is not None else None

    def computed(self, *, default_cached: int | None) -> int | None:
        """Return the tokens that ran through the model, or ``None`` if that is not known.

        ``default_cached`` is how many were cached where the server does not say.
        """
        cached = default_cached if self.cached is None else self.cached
        if self.prompt_tokens is None or cached is None:
            return None
        return max(0, self.prompt_tokens - cached)


BYTES_BY_TOKEN = 256
"""Size of a server's answer for each token of a prompt at most, its texts and ids included."""

BYTES_BY_NEW_TOKEN = 1024
"""The same for each token that is generated."""

BYTES_BY_TEXT = 16
"""Size of a server's token ids for each byte of a text at most."""

BETWEEN_IDS = re.compile(rb"\d\s*,(?=\s*-?\d)")


class Choice(Struct):
    """The part of an answer for one prompt, which ``index`` counts."""

    index: int


C = TypeVar("C", bound=Choice)


def room_for(prompt: WirePrompt) -> int:
    """Return the bytes that an answer for ``prompt`` may take."""
    return SMALL_ANSWER_BYTES + BYTES_BY_TOKEN * (len(prompt.tokens) + len(prompt.ranges))


def require_ids(field: str, ids: Sequence[int] | None, text: str) -> None:
    """Require ids for a text that was generated, unless the server gives none at all.

    Raises:
        ScorerError: names the field.
    """
    if ids is not None and text and not ids:
        raise ScorerError(f"{field}: is empty, and the text is not; update the server")


def only_choice(where: str, choices: Sequence[C]) -> C:
    """Return the one choice of an answer to one prompt.

    Raises:
        ScorerError: there is not exactly one.
    """
    if (got := [choice.index for choice in choices[:2]]) != [0]:
        raise ScorerError(
            f"{where}: choices: asked for 1 prompt, got indexes {got}; "
            "does server.scorer fit this server?"
        )
    return choices[0]
