"""How well values agree with labels and with random ablations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
"""Resamples of the answers: their 2.5 % quantile has 50 below it."""

SEED = 20261127


def top_one(values: Sequence[float], labelled: Sequence[bool]) -> float:
    """Return 1.0 if the largest value is labelled: the top-1 of ARC-JSD's table.

    Of several that are equally large, it is the share that is labelled.
    """
    largest = max(values)
    first = [is_in for value, is_in in zip(values, labelled, strict=True) if value == largest]
    return sum(first) / len(first)


def reciprocal_rank(values: Sequence[float], labelled: Sequence[bool]) -> float:
    """Return 1 / the rank of the first that is labelled; equal values share their mean rank."""
    best = max(value for value, is_in in zip(values, labelled, strict=True) if is_in)
    above = sum(value > best for value in values)
    level = sum(value == best for value in values)
    return 1 / (above + (level + 1) / 2)


def auroc(values: Sequence[float], labelled: Sequence[bool]) -> float | None:
    """Return the chance that a labelled value is larger than another; equal ones count half.

    ``None`` where all are labelled, or none is.
    """
    inside = np.array([it for it, is_in in zip(values, labelled, strict=True) if is_in])
    outside = np.array([it for it, is_in in zip(values, labelled, strict=True) if not is_in])
    if not len(inside) or not len(outside):
        return None
    apart = inside[:, None] - outside[None, :]
    return float((np.sign(apart) / 2 + 0.5).mean())


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Spearman's correlation; ``None`` where all values of either are equal."""
    ranks = [_ranks(np.array(it)) for it in (one, other)]
    apart, others = (it - it.mean() for it in ranks)
    size = float(np.linalg.norm(apart) * np.linalg.norm(others))
    return float(apart @ others) / size if size else None


def additive_fit(
    values: Sequence[float], masks: Sequence[str], totals: Sequence[float]
) -> float | None:
    """Return the linear datamodeling score (Park 2023).

    It is the rank correlation of what the sums of ``values`` predict for random ablations with
    ``totals``, what the model answers. A mask has a "1" for each memory that it keeps.
    """
    predicted = [
        sum(value for value, kept in zip(values, mask, strict=True) if kept == "1")
        for mask in masks
    ]
    return rank_correlation(predicted, totals)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean, by resampling the answers (percentile bootstrap)."""
    found = np.array(values, float)
    draws = np.random.default_rng(SEED).integers(0, len(found), (DRAWS, len(found)))
    low, high = np.quantile(found[draws].mean(1), (0.025, 0.975))
    return float(low), float(high)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each value, the mean one of equal values."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - (counts - 1) / 2
    found: NDArray[np.float64] = means[places]
    return found
