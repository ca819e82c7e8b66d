"""Estimate what each memory does from random ablations, as ContextCite does (Cohen-Wang 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

KEPT = 0.5
"""The chance that an ablation keeps a memory."""

PENALTY = 0.01
"""Weight of the sum of the coefficients' sizes, of standardised masks; values are per token."""

SWEEPS, CONVERGED = 1000, 1e-7

Masks = NDArray[np.bool_]
"""Of shape (ablations, memories): which memories each keeps."""

Values = NDArray[np.float64]


def random_masks(count: int, memories: int, first_seed: int = 0) -> Masks:
    """Return ``count`` masks, each drawn with a seed of its own, as the package context-cite does.

    So the first of many are those of few.
    """
    seeds = range(first_seed, first_seed + count)
    drawn = [
        np.random.RandomState(it).choice([False, True], memories, p=[KEPT, 1 - KEPT])
        for it in seeds
    ]
    return np.array(drawn, bool).reshape(count, memories)


def logit(logprobs: Sequence[float]) -> Values:
    """Return the logits of probabilities that are given by their logarithms."""
    return np.array([it - math.log(max(1e-12, -math.expm1(it))) for it in logprobs])


def lasso(masks: Masks, values: Values, tokens: int) -> Values:
    """Return each memory's coefficient in a sparse linear model of ``values``.

    ``tokens`` is the response's length: the penalty is on values per token. Coordinate descent
    (Friedman 2010) on standardised masks, with the coefficients scaled back.
    """
    scale = masks.std(0)
    scale[scale == 0] = 1.0
    columns = (masks - masks.mean(0)) / scale
    left = values / tokens - (values / tokens).mean()
    sizes = (columns**2).mean(0)
    weights = np.zeros(masks.shape[1])
    for _ in range(SWEEPS):
        largest = 0.0
        for at in np.flatnonzero(sizes):
            column, old = columns[:, at], weights[at]
            pull = column @ left / len(left) + sizes[at] * old
            new = math.copysign(max(0.0, abs(pull) - PENALTY), pull) / sizes[at]
            left -= column * (new - old)
            weights[at], largest = new, max(largest, abs(new - old))
        if largest < CONVERGED:
            break
    found: Values = weights / scale * tokens
    return found
