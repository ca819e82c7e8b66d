"""Memories that hide each other: leave-one-out alone shows neither."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from mindhooks import MemoryScore, ResponseDivergence

HOLD = 1.0
"""Nats that a memory must do alone to count as what a response may rest on."""

OF_LARGEST = 0.5
"""The share of a response's largest hold that its must reach: any memory does a little alone."""

OF_HOLD = 0.1
"""The share of its hold below which a memory's drop counts as nothing."""


@dataclass(frozen=True, slots=True)
class RedundantPair:
    """Two memories, and the responses that either supports alone and neither is missed by."""

    keys: tuple[str, str]
    node_ids: tuple[str, ...]


def redundant_pairs(scores: Iterable[MemoryScore | None]) -> list[RedundantPair]:
    """The pairs of memories that hide each other, those with the most responses first.

    Of a response that both support alone (hold) and that misses neither (drop near zero). That each
    could do the other's work is then likely, not shown: the two were not removed together.
    """
    known = [score for score in scores if score is not None and score.hold is not None]
    largest: dict[str, float] = defaultdict(float)
    for score in known:
        for held in score.hold or ():
            largest[held.node_id] = max(largest[held.node_id], held.signed)
    hidden: dict[str, list[str]] = defaultdict(list)
    for score in known:
        drops = {cell.node_id: cell for cell in score.divergences}
        for held in score.hold or ():
            drop = drops.get(held.node_id)
            enough = max(HOLD, OF_LARGEST * largest[held.node_id])
            if drop is not None and held.signed >= enough and _is_nothing(drop, held):
                hidden[held.node_id].append(score.key)
    together: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node_id, keys in hidden.items():
        for one, other in combinations(keys, 2):
            together[one, other].append(node_id)
    pairs = [RedundantPair(keys, tuple(node_ids)) for keys, node_ids in together.items()]
    return sorted(pairs, key=lambda pair: -len(pair.node_ids))


def _is_nothing(drop: ResponseDivergence, hold: ResponseDivergence) -> bool:
    return abs(drop.signed) <= max(OF_HOLD * hold.signed, drop.noise or 0.0)
