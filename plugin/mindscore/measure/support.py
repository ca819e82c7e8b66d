"""Rank the memories that a response rests on: what it loses without them, and common words.

Leave-one-out alone misses what is said twice: nothing is lost without either. Words in common alone
miss what the model did with them. BM25 is an estimate of the logarithm of the odds that a document
is relevant (Robertson and Zaragoza 2009), and what a response loses is the logarithm of a
likelihood ratio: both are in nats, so they add up as evidence does, and nothing is to be tuned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mindhooks import ResponseDivergence
from mindscore.measure.divergence import is_indistinct

Effect = tuple[float, str]
"""What a memory did to a response, in nats, and the memory's key."""


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


def ranked(effects: Sequence[Effect], words: Mapping[str, float]) -> tuple[list[Effect], ...]:
    """Return the memories that helped a response, then those that harmed it, each list ordered.

    The first are in the order of their ``support``, the others from the worst on. ``words`` are
    what each memory has in common with the response, by key.
    """
    ranks = support([nats for nats, _ in effects], [words.get(key, 0.0) for _, key in effects])
    by_rank = [it for _, it in sorted(zip(ranks, effects, strict=True), reverse=True)]
    return [it for it in by_rank if it[0] > 0], sorted(it for it in effects if it[0] < 0)


def beyond_noise(
    rows: Mapping[str, Iterable[ResponseDivergence]], spreads: Mapping[str, float]
) -> dict[str, list[Effect]]:
    """Return the effects on each response that are beyond noise, by node id.

    ``rows`` are the memories' effects by key; ``spreads`` as of ``divergence.column_spreads``. A
    response on which some memory was measured is there, with an empty list where none is left.
    """
    found: dict[str, list[Effect]] = {}
    for key, row in rows.items():
        for it in row:
            its = found.setdefault(it.node_id, [])
            if it.signed and not is_indistinct(it, spreads):
                its.append((it.signed, key))
    return found


def candidates(words: Sequence[float], count: int) -> list[int]:
    """Return the ``count`` memories to measure first, the most promising first, by position.

    Of memories with as many words in common, the earlier ones are first.
    """
    return sorted(range(len(words)), key=lambda at: -words[at])[:count]
