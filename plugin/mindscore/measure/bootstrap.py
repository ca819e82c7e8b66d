"""Intervals and tests over conversations: bootstrap, sign flips, largest values, many tests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mindscore.measure.divergence import FEWEST
from mindscore.measure.evidence import Cells, Flags, Floats, Integers

RESAMPLES = 2000
"""Draws of conversations with replacement: their 2.5 % quantile has 50 below it."""

FLIPS = 9999
"""Random signs: the smallest p-value is 1 in 10,000, enough for hundreds of memories."""

SEED = 20260101
"""Of all draws: the same evidence has the same advice."""

FEWEST_CONVERSATIONS = 5
"""Conversations below which a bootstrap says nothing."""

LEVELS = (1.0, 3.0, 10.0)
"""Sizes, in limits, beyond which effects are counted: often and small, or rarely and much."""

TAIL = 3.0
"""Shape of the largest of many chance effects (Fréchet): heavier tails have no variance."""

_CONVERSATIONS, _MEMORIES = 1024, 256
"""Conversations and memories handled at once: the room that is needed stays bounded."""


class Grouped(Protocol):
    """Values of ``memories`` groups, in conversations: one of each for every value.

    The values are in the order of ``conversation``, a number below that of ``conversation_ids``.
    """

    @property
    def memories(self) -> int: ...
    @property
    def memory(self) -> Integers: ...
    @property
    def conversation(self) -> Integers: ...
    @property
    def conversation_ids(self) -> Integers: ...


_Block = tuple[Integers, Integers, tuple[int, int], np.random.Generator]


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """Each memory's mean in nats per response, its standard error, and their resamples.

    ``errors`` are NaN for fewer than ``FEWEST_CONVERSATIONS``. ``resampled`` is of shape
    (``RESAMPLES``, memories): by how many of its own standard errors the mean of resampled
    conversations is above the mean, infinite where all that it rests on are equal.
    """

    means: Floats
    errors: Floats
    resampled: Floats

    def intervals(self, confidence: float) -> tuple[Floats, Floats]:
        """Return both ends of each mean's interval, NaN where it is not known.

        It is the bootstrap-t interval (Efron 1981): wider where there are few conversations, and
        on the side of the long tail.
        """
        ends = [self._end((1 + confidence) / 2), self._end((1 - confidence) / 2)]
        is_known = np.isfinite(ends).all(0)
        low, high = (np.where(is_known, end, np.nan) for end in ends)
        return low, high

    def _end(self, quantile: float) -> Floats:
        # No interpolation: between infinite values there is nothing.
        scores = np.quantile(self.resampled, quantile, axis=0, method="nearest")
        scores[self.errors == 0] = 0.0
        return self.means - scores * self.errors

    def p_values_below(self, threshold: float) -> Floats:
        """Return the chance of so low a mean if it were ``threshold``; 1.0 where not known."""
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = (self.means - threshold) / self.errors
        lower = (self.resampled <= scores).sum(0)
        return np.where(np.isnan(scores), 1.0, (lower + 1) / (RESAMPLES + 1))


def resampled_means(cells: Grouped, nats: Floats, conversations: Integers) -> Means:
    """Return the mean of each memory's ``nats``, and what comes of it in resampled conversations.

    ``nats`` has a value for each cell; ``conversations`` are the numbers in which each memory was
    judged. Each conversation is drawn a Poisson(1) number of times, independently of the others.
    """
    parts = [_resample(cells, nats, memories) for memories in _groups(cells)]
    means, errors, resampled = (np.concatenate(it, axis=-1) for it in zip(*parts, strict=True))
    errors[conversations < FEWEST_CONVERSATIONS] = np.nan
    return Means(means, errors, resampled)


def _resample(cells: Grouped, nats: Floats, memories: range) -> tuple[Floats, Floats, Floats]:
    """Return the means of some memories, their errors, and what comes of resampling."""
    width = 5 * len(memories)
    observed, drawn = np.zeros((1, width)), np.zeros((RESAMPLES, width))
    for rows, places, shape, random in _blocks(cells, memories):
        sums, counts = (
            np.bincount(places, it, math.prod(shape)).reshape(shape) for it in (nats[rows], None)
        )
        table = np.hstack([sums, counts, sums * sums, sums * counts, counts * counts])
        observed += table.sum(0)
        drawn += random.poisson(1.0, (RESAMPLES, len(table))).astype(float) @ table
    means, errors = (it[0] for it in _ratios(observed))
    drawn_means, drawn_errors = _ratios(drawn)
    difference = drawn_means - means
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = difference / drawn_errors
    # Without any of the memory's conversations, or all of them alike, a draw says nothing.
    blank = ~np.isfinite(resampled)
    resampled[blank] = np.where(difference < 0, -np.inf, np.inf)[blank]
    return means, errors, resampled


def _ratios(sums: Floats) -> tuple[Floats, Floats]:
    """Return means per response, and their standard errors, of sums over conversations.

    ``sums`` has five parts: nats, responses, nats squared, nats times responses, and responses
    squared, of conversations. The error is that of a ratio, by its linear approximation.
    """
    nats, counts, nats_squared, products, counts_squared = np.split(sums, 5, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = nats / counts
        squares = nats_squared - 2 * means * products + means * means * counts_squared
        # What is left of equal values is rounding.
        squares[squares < 1e-9 * nats_squared] = 0.0
        return means, np.sqrt(squares) / counts


def sign_flip_p_values(cells: Cells) -> tuple[Floats, Floats]:
    """Return the chance of each memory's help, and of its harm, if it did nothing.

    A memory that does nothing helps and harms alike: the sign of a conversation's effects is then
    a coin's. What is summed over conversations is the number of effects beyond each of ``LEVELS``,
    helps less harms, and the effects cut off at one limit, less those of the typical memory; the
    largest of these sums, in its own standard errors, is compared with that of random signs.
    """
    cut = np.clip(cells.size, -1, 1)
    parts = [cut - _typical_mean(cells, cut)]
    parts += [np.sign(cells.size) * (np.abs(cells.size) > level) for level in LEVELS]
    found = [_flip(cells, parts, memories) for memories in _groups(cells)]
    help_, harm = (np.concatenate(it) for it in zip(*found, strict=True))
    return help_, harm


def _flip(cells: Cells, parts: Sequence[Floats], memories: range) -> tuple[Floats, Floats]:
    """Return the p-values of some memories' help and harm, from the ``parts`` of each cell."""
    width = len(parts) * len(memories)
    observed, squares = np.zeros(width), np.zeros(width)
    flipped = np.zeros((FLIPS, width), np.float32)
    for rows, places, shape, random in _blocks(cells, memories):
        sums = [np.bincount(places, it[rows], math.prod(shape)).reshape(shape) for it in parts]
        table = np.hstack(sums)
        observed += table.sum(0)
        squares += (table**2).sum(0)
        signs = random.integers(0, 2, (FLIPS, len(table)), np.int8)
        signs *= 2
        signs -= 1
        flipped += signs.astype(np.float32) @ table.astype(np.float32)
    errors = np.sqrt(np.where(squares > 0, squares, np.inf))
    scores = (observed / errors).reshape(len(parts), len(memories))
    flipped /= errors.astype(np.float32)
    chance = flipped.reshape(FLIPS, *scores.shape).max(1)
    # Sums in single precision: what is equal may differ in the last digits.
    chance += 1e-5
    help_ = (chance >= scores.max(0)).sum(0)
    harm = (chance >= (-scores).max(0)).sum(0)
    return (help_ + 1) / (FLIPS + 1), (harm + 1) / (FLIPS + 1)


def _typical_mean(cells: Cells, values: Floats) -> float:
    """Return the typical memory's mean of ``values``, 0.0 where too few memories are known."""
    responses = np.bincount(cells.memory, minlength=cells.memories)
    judged = responses > 0
    if judged.sum() < FEWEST:
        return 0.0
    sums = np.bincount(cells.memory, values, cells.memories)
    return float(np.median(sums[judged] / responses[judged]))


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


def _groups(cells: Grouped) -> Iterator[range]:
    """Yield the memories, at most ``_MEMORIES`` at once."""
    for first in range(0, max(1, cells.memories), _MEMORIES):
        yield range(first, min(first + _MEMORIES, cells.memories))


def _blocks(cells: Grouped, memories: range) -> Iterator[_Block]:
    """Yield the rows of at most ``_CONVERSATIONS``, their places in a table, and its shape.

    The table has a row for each conversation and a column for each memory. The random numbers are
    those of the conversations, whatever the memories.
    """
    mine = np.flatnonzero((cells.memory >= memories.start) & (cells.memory < memories.stop))
    for first in range(0, len(cells.conversation_ids), _CONVERSATIONS):
        end = min(first + _CONVERSATIONS, len(cells.conversation_ids))
        rows = mine[slice(*np.searchsorted(cells.conversation[mine], [first, end]))]
        places = (cells.conversation[rows] - first) * len(memories)
        places += cells.memory[rows] - memories.start
        yield rows, places, (end - first, len(memories)), np.random.default_rng([SEED, first])
