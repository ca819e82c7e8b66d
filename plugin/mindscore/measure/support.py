"""Rank the memories that a response rests on, by several measures together.

Leave-one-out finds what a response needs, a memory alone what suffices for it, and common words
what is about the same thing. Each fails where another does not: two memories that say the same are
not needed, one that only helps another does not suffice, and what is about the same thing may be
wrong. The measures have different units, so that each is standardised before they are added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def support(measures: Iterable[Sequence[float]]) -> list[float]:
    """Return how far each memory stands out among all memories before one response.

    Each of ``measures`` has a value for each memory, in the same order: what it did to the response
    when it was dropped or hidden (nats), what it does alone (nats), the words that both have in
    common (BM25). The result is the sum of their ``standard_scores``: 0 on average, without a unit,
    for ranking the memories of one response and nothing else.
    """
    scores = [standard_scores(values) for values in measures]
    return [math.fsum(its) for its in zip(*scores, strict=True)]


def standard_scores(values: Sequence[float]) -> list[float]:
    """Return by how many standard deviations each value is above the mean.

    Where all values are equal, each is 0: they tell nothing apart. The largest of N is at most the
    square root of N - 1, so that no measure outweighs the others by its unit.
    """
    if not values:
        return []
    mean = math.fsum(values) / len(values)
    apart = [it - mean for it in values]
    deviation = math.sqrt(math.fsum(it * it for it in apart) / len(apart))
    # Of equal values, rounding is all that is left.
    if deviation <= 1e-12 * max(map(abs, values)):
        return [0.0] * len(values)
    return [it / deviation for it in apart]
