"""Rank the memories that a response rests on: what it loses without them, and common words.

Leave-one-out alone misses what is said twice: nothing is lost without either. Words in common alone
miss what the model did with them. BM25 is an estimate of the logarithm of the odds that a document
is relevant (Robertson and Zaragoza 2009), and what a response loses is the logarithm of a
likelihood ratio: both are in nats, so they add up as evidence does, and nothing is to be tuned.
"""

from __future__ import annotations

from collections.abc import Sequence


def support(drop: Sequence[float | None], words: Sequence[float]) -> list[float]:
    """Return how well each memory is supported as the one that a response rests on.

    ``drop`` are the nats that the response loses without each memory, ``None`` where that was not
    measured; ``words`` are the words that each has in common with the response and what was said to
    it (``screening.words.common_words``). What was not measured is ranked by its words alone. The
    values are for ranking the memories of one response: they are no effect, and no probability.
    """
    return [
        common if lost is None else lost + common for lost, common in zip(drop, words, strict=True)
    ]


def candidates(words: Sequence[float], count: int) -> list[int]:
    """Return the ``count`` memories to measure first, the most promising first, by position.

    Of memories with as many words in common, the earlier ones are first.
    """
    return sorted(range(len(words)), key=lambda at: -words[at])[:count]
