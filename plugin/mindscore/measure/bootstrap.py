"""Intervals and tests over conversations: bootstrap, sign flips, largest values, many tests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from mindscore.measure.evidence import Cells, Flags, Floats, Integers

RESAMPLES = 2000
"""Draws of conversations with replacement: their 2.5 % quantile has 50 below it."""

FLIPS = 9999
"""Random signs: the smallest p-value is 1 in 10,000, enough for hundreds of memories."""

SEED = 20260101
"""Of all draws: the same evidence has the same advice."""

FEWEST_CONVERSATIONS = 5
"""Conversations below which a bootstrap says nothing: the interval would be far too narrow."""

LEVELS = (1.0, 3.0, 10.0)
"""Sizes, in limits, beyond which effects are counted: often and small, or rarely and much."""

TAIL = 3.0
"""Shape of the largest of many chance effects (Fréchet): heavier tails have no variance."""

_BLOCK = 1024
"""Conversations handled at once: memory stays bounded, however many there are."""

_STANDARD = NormalDist()


def resampled_means(cells: Cells) -> Floats:
    """Return each memory's mean effect in nats per response, in resampled conversations.

    Of shape (``RESAMPLES``, memories); NaN where a draw has none of a memory's conversations. Each
    conversation is drawn a Poisson(1) number of times, independently of the others.
    """
    random = np.random.default_rng(SEED)
    sums = np.zeros((RESAMPLES, 2 * cells.memories))
    for rows, places, conversations in _blocks(cells):
        weights = random.poisson(1.0, (RESAMPLES, conversations)).astype(float)
        size = conversations * cells.memories
        tables = [np.bincount(places, it, size) for it in (cells.effect[rows], None)]
        sums += weights @ np.hstack([it.reshape(conversations, -1) for it in tables])
    nats, counts = sums[:, : cells.memories], sums[:, cells.memories :]
    with np.errstate(invalid="ignore"):
        return np.where(counts > 0, nats / counts, np.nan)


def intervals(means: Floats, conversations: Integers, confidence: float) -> tuple[Floats, Floats]:
    """Return both ends of each memory's interval; NaN for too few conversations.

    ``means`` are the ``resampled_means``. A percentile interval, expanded for the number of
    conversations (Hesterberg 2015).
    """
    low, high = np.full(means.shape[1], np.nan), np.full(means.shape[1], np.nan)
    for memory, number in enumerate(conversations):
        if number >= FEWEST_CONVERSATIONS:
            draws = means[:, memory]
            draws = draws[~np.isnan(draws)]
            tail = 1 - _STANDARD.cdf(expanded((1 + confidence) / 2, int(number)))
            low[memory], high[memory] = np.quantile(draws, [tail, 1 - tail])
    return low, high


def expanded(confidence: float, conversations: int) -> float:
    """Return the standard errors that cover ``confidence`` on one side, of so few conversations.

    Student's t (Abramowitz and Stegun 26.7.5), times the factor by which resampling few values
    makes their spread too small.
    """
    z, freedom = _STANDARD.inv_cdf(confidence), conversations - 1
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return t * math.sqrt(conversations / freedom)


def sign_flip_p_values(cells: Cells) -> tuple[Floats, Floats]:
    """Return the chance of each memory's help, and of its harm, if it did nothing.

    A memory that does nothing helps and harms alike: the sign of a conversation's effects is then
    a coin's. What is summed over conversations is the number of effects beyond each of ``LEVELS``,
    helps less harms, and the effects cut off at one limit; the largest of these sums, each
    in its own standard errors, is compared with that of random signs.
    """
    width = (1 + len(LEVELS)) * cells.memories
    observed, squares = np.zeros(width), np.zeros(width)
    flipped = np.zeros((FLIPS, width), np.float32)
    random = np.random.default_rng(SEED)
    for rows, places, conversations in _blocks(cells):
        size = cells.size[rows]
        parts = [np.clip(size, -1, 1)]
        parts += [np.sign(size) * (np.abs(size) > level) for level in LEVELS]
        shape = (conversations, cells.memories)
        sums = [np.bincount(places, part, math.prod(shape)).reshape(shape) for part in parts]
        table = np.hstack(sums)
        observed += table.sum(0)
        squares += (table**2).sum(0)
        signs = random.integers(0, 2, (FLIPS, conversations), np.int8).astype(np.float32)
        signs = 2 * signs - 1
        flipped += signs @ table.astype(np.float32)
    errors = np.sqrt(np.where(squares > 0, squares, np.inf))
    scores = (observed / errors).reshape(-1, cells.memories)
    chance = (flipped / errors.astype(np.float32)).reshape(FLIPS, -1, cells.memories).max(1)
    # Sums in single precision: what is equal may differ in the last digits.
    chance += 1e-5
    help_ = (chance >= scores.max(0)).sum(0)
    harm = (chance >= (-scores).max(0)).sum(0)
    return (help_ + 1) / (FLIPS + 1), (harm + 1) / (FLIPS + 1)


def largest_p_values(largest: Floats, chance: Floats, responses: Integers) -> Floats:
    """Return the chance that each memory's largest effect is the largest of chance effects.

    ``largest`` and ``chance`` are in limits; the latter are each memory's largest effect in the
    direction in which few memories have any, so that the typical memory's is chance. The largest of
    many values is distributed as Fréchet found, here with the typical one as its median.
    """
    judged = responses > 0
    if not judged.any():
        return np.ones(len(largest))
    typical = max(1.0, float(np.median(chance[judged])))
    number = float(np.median(responses[judged]))
    ratio = np.maximum(largest, 1e-9) / typical
    with np.errstate(over="ignore"):
        return np.where(judged, 1 - 2.0 ** -(responses / number * ratio**-TAIL), 1.0)


def discoveries(p_values: Floats, level: float) -> Flags:
    """Return which null hypotheses are rejected, at a false discovery rate of ``level``.

    Benjamini and Hochberg 1995.
    """
    order = np.argsort(p_values, kind="stable")
    steps = level * np.arange(1, len(p_values) + 1) / len(p_values)
    passed = np.flatnonzero(p_values[order] <= steps)
    found = np.zeros(len(p_values), bool)
    found[order[: passed[-1] + 1 if len(passed) else 0]] = True
    return found


def _blocks(cells: Cells) -> Iterator[tuple[slice, Integers, int]]:
    """Yield rows of at most ``_BLOCK`` conversations, their places in a table, its height.

    The table has a row for each conversation and a column for each memory.
    """
    total = len(cells.conversation_ids)
    for first in range(0, total, _BLOCK):
        end = min(first + _BLOCK, total)
        rows = slice(*np.searchsorted(cells.conversation, [first, end]))
        places = (cells.conversation[rows] - first) * cells.memories + cells.memory[rows]
        yield rows, places, end - first
