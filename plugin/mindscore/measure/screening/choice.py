"""Choose the memories to measure exactly, and compare estimates with what was measured."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from statistics import median, quantiles

BEST = 3
"""Memories of a response that are measured exactly, where one may matter to it."""

SMALL = 0.2
"""Share of the estimate to confirm below which a memory is none of a response's best."""

OF_TOP = 0.25
"""Share of a response's largest estimate from which on another may be the largest in truth."""

SURE = 2.0
"""Multiple of the estimate to confirm that is confirmed before all others, and at any cost."""

Cells = Mapping[str, Mapping[int, float]]
"""Nats by memory and response, which are numbered in order."""

TRUST = 0.5
"""Share of a memory's weight that goes by its words: some that share none matter."""

FEWEST_ROWS = 3
"""Memories below which what they do to a response is not what most do."""

FEWEST_CELLS = 5
"""Cells below which a rank correlation says nothing."""


def to_confirm(estimates: Cells, least: float) -> tuple[list[str], list[str]]:
    """Return the memories to measure at any cost, and more that may turn out to matter.

    The first have an estimate of ``SURE`` times ``least`` nats. The others have ``least``, or are
    among the best of a response. Those come first that are large for a response and have few above
    them there: an estimate counts by its size over the square root of its rank.
    """
    by_response: dict[int, list[tuple[float, str]]] = {}
    for key, its in estimates.items():
        for response, nats in its.items():
            if abs(nats) >= SMALL * least:
                by_response.setdefault(response, []).append((abs(nats), key))
    largest: dict[str, float] = {}
    weights: dict[str, float] = {}
    for found in by_response.values():
        ranked = sorted(found, reverse=True)
        for rank, (nats, key) in enumerate(ranked, start=1):
            is_best = rank <= BEST and nats >= OF_TOP * ranked[0][0]
            if is_best or nats >= least:
                largest[key] = max(largest.get(key, 0.0), nats)
                weights[key] = max(weights.get(key, 0.0), nats / math.sqrt(rank))
    order = sorted(weights, key=lambda key: (-weights[key], key))
    sure = [key for key in order if largest[key] >= SURE * least]
    return sure, [key for key in order if largest[key] < SURE * least]


def draw(keys: Sequence[str], count: int, seed: str) -> list[str]:
    """Return ``count`` of ``keys``, or all, uniformly at random; the same for the same ``seed``."""
    return random.Random(seed).sample(keys, min(count, len(keys)))  # noqa: S311 - no secret


def weights_of_words(keys: Sequence[str], words: Cells) -> dict[str, float]:
    """Return how likely each memory is to matter, 1 on average, by the ``words`` that it shares.

    It goes by the square of its largest score for a response; without any, all are as likely.
    """
    shared = {key: max(words.get(key, {}).values(), default=0.0) ** 2 for key in keys}
    whole = sum(shared.values())
    if not whole:
        return dict.fromkeys(keys, 1.0)
    return {key: 1 - TRUST + TRUST * len(keys) * its / whole for key, its in shared.items()}


def usual_effects(rows: Cells, responses: int) -> dict[int, float]:
    """Return the median size of what ``rows`` do to each response, in nats.

    It is that of all cells where few of them precede a response.
    """
    by_response: dict[int, list[float]] = {it: [] for it in range(responses)}
    for its in rows.values():
        for response, nats in its.items():
            by_response[response].append(abs(nats))
    every = [nats for its in by_response.values() for nats in its]
    usual = median(every) if every else 0.0
    return {
        response: max(usual, median(its)) if len(its) >= FEWEST_ROWS else usual
        for response, its in by_response.items()
    }


def added_up(estimates: Cells) -> dict[int, float]:
    """Return the sum of the estimates for each response, in nats."""
    found: dict[int, float] = {}
    for its in estimates.values():
        for response, nats in its.items():
            found[response] = found.get(response, 0.0) + nats
    return found


def errors(estimates: Cells, exact: Cells) -> tuple[float | None, float | None]:
    """Return the median and the 95th percentile of ``|estimate - exact|`` over the exact cells."""
    apart = [
        abs(estimates.get(key, {}).get(response, 0.0) - nats)
        for key, its in exact.items()
        for response, nats in its.items()
    ]
    if len(apart) < 2:
        return (apart[0], apart[0]) if apart else (None, None)
    return median(apart), quantiles(apart, n=20, method="inclusive")[-1]


def rank_correlation(estimates: Cells, exact: Cells) -> float | None:
    """Return Spearman's rank correlation over the exact cells, ``None`` where it says nothing."""
    pairs = [
        (abs(estimates.get(key, {}).get(response, 0.0)), abs(nats))
        for key, its in exact.items()
        for response, nats in its.items()
    ]
    if len(pairs) < FEWEST_CELLS:
        return None
    return _correlation(_ranks([it for it, _ in pairs]), _ranks([it for _, it in pairs]))


def top_found(estimates: Cells, exact: Cells, least: float) -> float | None:
    """Return the share of responses whose largest exact effect has the largest estimate, too.

    Responses on which none of the exact memories does ``least`` nats are left out; ``None``: all.
    """
    tops: dict[int, tuple[float, str]] = {}
    for key, its in exact.items():
        for response, nats in its.items():
            tops[response] = max(tops.get(response, (0.0, "")), (abs(nats), key))
    strong = {response: key for response, (nats, key) in tops.items() if nats >= least}
    if not strong:
        return None
    hits = 0
    for response, top in strong.items():
        guesses = {key: abs(estimates.get(key, {}).get(response, 0.0)) for key in exact}
        others = max((it for key, it in guesses.items() if key != top), default=0.0)
        hits += guesses[top] > others
    return hits / len(strong)


def _ranks(values: Sequence[float]) -> list[float]:
    """Return each value's rank; equal ones have the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    place = 0
    for _, its in groupby(order, key=values.__getitem__):
        same = list(its)
        for index in same:
            ranks[index] = place + (len(same) - 1) / 2
        place += len(same)
    return ranks


def _correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    mean, other_mean = sum(one) / len(one), sum(other) / len(other)
    both = sum((a - mean) * (b - other_mean) for a, b in zip(one, other, strict=True))
    spread = _squares(one, mean) * _squares(other, other_mean)
    return both / math.sqrt(spread) if spread else None


def _squares(values: Iterable[float], mean: float) -> float:
    return sum((it - mean) ** 2 for it in values)
