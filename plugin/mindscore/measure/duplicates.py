"""Memories of an archive that say the same: by what each does alone, or by their words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import permutations
from statistics import NormalDist

import numpy as np

from mindscore.measure.divergence import FEW, HOLD, OF_HOLD, OF_LARGEST, SPREADS
from mindscore.measure.evidence import Cells, Flags, Integers, MemoryVersion, grouped_median

ALIKE = 0.5
"""Similarity of two texts' words from which on they may say the same."""

_WORD = re.compile(r"\w+")


class Basis(StrEnum):
    """How it is known that two memories say the same, the surest first.

    Confirmed: both were removed together, and were missed. Hold: either alone supports the same
    responses, and neither is missed. Text: they read alike, and nothing was measured.
    """

    CONFIRMED = "confirmed"
    HOLD = "hold"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Another memory that says the same.

    Of the ``supported`` responses that the memory supports alone, the other does its work in
    ``shared``. By text, both are 0 and ``similarity`` is that of the words, from 0 to 1.
    """

    key: str
    basis: Basis
    shared: int = 0
    supported: int = 0
    similarity: float = 0.0


def find_duplicates(
    versions: Sequence[MemoryVersion],
    cells: Cells,
    current: Sequence[int],
    confirmed: Iterable[Collection[str]],
) -> dict[str, tuple[Duplicate, ...]]:
    """Return the duplicates of each memory that has any, by key, the most certain first.

    ``current`` are the versions to compare; ``confirmed`` are keys that were removed together and
    missed. Words are compared only where no hold is known.
    """
    keys = {index: versions[index].key for index in current}
    sure = {pair for group in confirmed for pair in permutations(group, 2)}
    supported, ones, others, counts = hidden_together(cells)
    found: dict[tuple[str, str], Duplicate] = {}
    for one, other, shared in zip(ones.tolist(), others.tolist(), counts.tolist(), strict=True):
        if one in keys and other in keys:
            pair = (keys[one], keys[other])
            basis = Basis.CONFIRMED if pair in sure else Basis.HOLD
            found[pair] = Duplicate(pair[1], basis, shared, int(supported[one]))
    known = {key: int(supported[index]) for index, key in keys.items()}
    for pair in sorted(sure - found.keys()):
        if known.keys() >= set(pair):
            found[pair] = Duplicate(pair[1], Basis.CONFIRMED, 0, known[pair[0]])
    has_hold = np.bincount(cells.memory[np.isfinite(cells.hold)], minlength=cells.memories) > 0
    unknown = [index for index in current if not has_hold[index]]
    for at, near, similarity in alike([versions[index].text for index in unknown]):
        one, other = unknown[at], unknown[near]
        for pair in ((keys[one], keys[other]), (keys[other], keys[one])):
            found.setdefault(pair, Duplicate(pair[1], Basis.TEXT, similarity=similarity))
    by_key: dict[str, list[Duplicate]] = {}
    for (key, _), duplicate in found.items():
        by_key.setdefault(key, []).append(duplicate)
    order = list(Basis)
    return {
        key: tuple(
            sorted(its, key=lambda it: (order.index(it.basis), -it.shared, -it.similarity, it.key))
        )
        for key, its in by_key.items()
    }


def hidden_together(cells: Cells) -> tuple[Integers, Integers, Integers, Integers]:
    """Return how often memories support responses, and how often others do their work.

    The first is of shape (memories,): the responses that each supports alone. The other three are
    of equal length, a triple for each pair of memories that share a response: one memory, the
    other, and in how many responses. A memory is in such a pair with each other one of the
    response's that supports it alone and is not missed, as ``divergence.redundant_candidates`` has
    it. Whether they are missed together, only removing them together shows.
    """
    supports, is_hidden = _supports(cells)
    supported = np.bincount(cells.memory[supports], minlength=cells.memories)
    memory, response = cells.memory[is_hidden], cells.response[is_hidden]
    group_sizes = np.bincount(response)[response] if len(response) else response
    # Each hidden cell with each other one of its response, which lie next to each other.
    pairs = np.zeros(0, np.int64)
    for distance in range(1, int(group_sizes.max(initial=0))):
        same = np.flatnonzero(response[distance:] == response[:-distance])
        one, other = memory[same], memory[same + distance]
        both = [one * cells.memories + other, other * cells.memories + one]
        pairs = np.concatenate([pairs, *both])
    codes, counts = np.unique(pairs, return_counts=True)
    return supported, codes // cells.memories, codes % cells.memories, counts


def _supports(cells: Cells) -> tuple[Flags, Flags]:
    """Return whether each cell's memory supports the response alone, and whether it hides there."""
    known = np.flatnonzero(np.isfinite(cells.hold))
    _, response = np.unique(cells.response[known], return_inverse=True)
    hold, effect = cells.hold[known], np.abs(cells.signed[known])
    largest = np.full(response.max(initial=-1) + 1, -np.inf)
    np.maximum.at(largest, response, hold)
    lift, counts = grouped_median(response, hold)
    deviation, _ = grouped_median(response, np.abs(hold - lift[response]))
    # Of few memories, the typical one is among those far below the largest.
    unrelated = np.flatnonzero(hold < OF_LARGEST * largest[response])
    low, low_counts = grouped_median(response[unrelated], hold[unrelated])
    few_lift = np.zeros(len(lift))
    few_lift[: len(low)] = np.where(low_counts > 0, low, 0.0)
    has_enough = counts >= FEW
    lift = np.maximum(0.0, np.where(has_enough, lift, few_lift))
    spread = np.where(has_enough, 1.4826 * deviation, 0.0)
    enough = np.maximum(np.maximum(HOLD, SPREADS * spread), OF_LARGEST * (largest - lift))
    above = hold - lift[response]
    supports, is_hidden = np.zeros(len(cells.hold), bool), np.zeros(len(cells.hold), bool)
    is_support = above >= enough[response]
    supports[known] = is_support
    nothing = np.maximum(OF_HOLD * above, cells.noise[known])
    is_hidden[known] = is_support & (effect <= nothing)
    return supports, is_hidden


def lowest_share(part: int, whole: int, confidence: float) -> float:
    """Return the least share of which ``part`` in ``whole`` is likely (Wilson 1927), 0.0 of none.

    It is lower the fewer there are: 3 of 3 may be a share of 0.44, 10 of 10 one of 0.72.
    """
    if not whole:
        return 0.0
    z, share = NormalDist().inv_cdf((1 + confidence) / 2), part / whole
    middle = share + z * z / (2 * whole)
    error = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return (middle - error) / (1 + z * z / whole)


def alike(texts: Sequence[str | None]) -> list[tuple[int, int, float]]:
    """Return pairs of texts whose words are alike, by index, and their similarity, from 0 to 1.

    It is the cosine of their words, each weighted by how few of the texts have it, and at least
    ``ALIKE``. Unlike words may say the same, and like ones may not: it is a hint, no proof.
    """
    words = [Counter(_WORD.findall((text or "").casefold())) for text in texts]
    texts_with = Counter(word for each in words for word in each)
    weight = {word: math.log1p(len(texts) / count) for word, count in texts_with.items()}
    # A word of one text alone makes it longer, and no pair alike.
    shared = {word: index for index, word in enumerate(w for w, n in texts_with.items() if n > 1)}
    table = np.zeros((len(texts), len(shared)), np.float32)
    for row, each in zip(table, words, strict=True):
        length = math.sqrt(sum((count * weight[word]) ** 2 for word, count in each.items()))
        for word in each.keys() & shared.keys():
            row[shared[word]] = each[word] * weight[word] / length
    found = []
    for one, row in enumerate(table):
        near = table[one + 1 :] @ row
        hits = np.flatnonzero(near >= ALIKE)
        found += [(one, one + 1 + int(hit), min(1.0, float(near[hit]))) for hit in hits]
    return found
