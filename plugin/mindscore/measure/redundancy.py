"""Find memories that hide each other, of which leave-one-out alone shows neither."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from mindhooks import MemoryScore, ResponseDivergence

HOLD = 1.0
"""Nats by which a memory alone must make a response likelier to count as its support."""

OF_LARGEST = 0.5
"""Share of a response's largest hold that a memory's must reach: any does a little alone."""

OF_HOLD = 0.1
"""Share of its hold below which a memory's drop counts as nothing."""


@dataclass(frozen=True, slots=True)
class RedundantPair:
    """Two memories, and the responses that each supports alone but that need neither."""

    keys: tuple[str, str]
    node_ids: tuple[str, ...]


def redundant_pairs(scores: Iterable[MemoryScore | None]) -> list[RedundantPair]:
    """Return the pairs of memories that hide each other, those with the most responses first.

    Both support a response alone (hold), and it is as likely without either one (drop near zero).
    That each could do the other's work is then likely, not shown: they were not removed together.
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
