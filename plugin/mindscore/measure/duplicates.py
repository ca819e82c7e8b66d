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

from mindscore.measure.evidence import Cells, Flags, Floats, Integers, MemoryVersion, grouped_median
from mindscore.measure.interactions import FEW, HOLD, OF_HOLD, OF_LARGEST, SPREADS

ALIKE = 0.4
"""Similarity of two texts' words from which on they may say the same."""

_WORD = re.compile(r"\w+")


class Basis(StrEnum):
    """The reason to think that two memories say the same, the surest first.

    Confirmed: both were removed together, and were missed. Hold: either alone supports the same
    responses, and neither is missed. Text: they read alike, and nothing was measured.
    """

    CONFIRMED = "confirmed"
    HOLD = "hold"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Another memory that says the same.

    Of the ``supported`` responses that the memory supports alone with the other in the context,
    the other does its work in ``shared``; both are 0 where no hold is known. By text,
    ``similarity`` is that of the words, from 0 to 1.
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
    found: dict[tuple[str, str], Duplicate] = {}
    for one, other, shared, supported in overlaps(cells):
        if one in keys and other in keys:
            pair = (keys[one], keys[other])
            basis = Basis.CONFIRMED if pair in sure else Basis.HOLD
            found[pair] = Duplicate(pair[1], basis, shared, supported)
    for pair in sorted(sure):
        if set(pair) <= set(keys.values()):
            found.setdefault(pair, Duplicate(pair[1], Basis.CONFIRMED))
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


def overlaps(cells: Cells) -> list[tuple[int, int, int, int]]:
    """Return pairs of memories of which the first is hidden by the other.

    Each is the two memories, the number of responses that both support alone, and the number that
    the first supports alone with the other in the context. Support, and that nothing is missed, are
    as in ``interactions.redundant_candidates``, the latter over all responses that both support.
    """
    lifted, is_support = supports(cells)
    rows = np.flatnonzero(is_support)
    ones, others = _pairs(cells.response[rows])
    codes = cells.memory[rows[ones]] * cells.memories + cells.memory[rows[others]]
    codes, place, shared = np.unique(codes, return_inverse=True, return_counts=True)
    first = rows[ones]
    missed = np.bincount(place, cells.signed[first], len(codes))
    nothing = np.maximum(OF_HOLD * lifted[first], cells.noise[first])
    is_hidden = np.abs(missed) <= np.bincount(place, nothing, len(codes))
    codes, shared = codes[is_hidden & (shared > 1)], shared[is_hidden & (shared > 1)]
    one, other = codes // cells.memories, codes % cells.memories
    met = _met(cells, rows, one, other)
    return list(zip(one.tolist(), other.tolist(), shared.tolist(), met.tolist(), strict=True))


def _pairs(groups: Integers) -> tuple[Integers, Integers]:
    """Return both orders of each two places of the same group; equal groups lie together."""
    ones, others = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for distance in range(1, int(np.bincount(groups).max(initial=0))):
        same = np.flatnonzero(groups[distance:] == groups[:-distance])
        ones += [same, same + distance]
        others += [same + distance, same]
    return np.concatenate(ones), np.concatenate(others)


def _met(cells: Cells, rows: Integers, one: Integers, other: Integers) -> Integers:
    """Return in how many of the ``rows`` of each memory ``one`` the memory ``other`` was known."""
    number = np.full(cells.memories, -1)
    involved = np.unique(np.concatenate([one, other]))
    number[involved] = np.arange(len(involved))
    rows = rows[number[cells.memory[rows]] >= 0]
    known = np.flatnonzero(np.isfinite(cells.hold) & (number[cells.memory] >= 0))
    starts, ends = (
        np.searchsorted(cells.response[known], cells.response[rows], side=side)
        for side in ("left", "right")
    )
    lengths = ends - starts
    before = np.repeat(np.cumsum(lengths) - lengths, lengths)
    beside = known[np.repeat(starts, lengths) + np.arange(lengths.sum()) - before]
    codes = number[np.repeat(cells.memory[rows], lengths)] * len(involved)
    codes += number[cells.memory[beside]]
    counts = np.bincount(codes, minlength=len(involved) ** 2)
    together: Integers = counts[number[one] * len(involved) + number[other]]
    return together


def supports(cells: Cells) -> tuple[Floats, Flags]:
    """Return each cell's hold beyond the general lift, and whether it supports the response alone.

    NaN and false where no hold is known.
    """
    lifted, is_support = np.full(len(cells.hold), np.nan), np.zeros(len(cells.hold), bool)
    known = np.flatnonzero(np.isfinite(cells.hold))
    response, hold = cells.response[known], cells.hold[known]
    largest = np.full(response.max(initial=-1) + 1, -np.inf)
    np.maximum.at(largest, response, hold)
    lift, counts = grouped_median(response, hold)
    deviation, _ = grouped_median(response, np.abs(hold - lift[response]))
    # Of few memories, the typical one is among those far below the largest.
    unrelated = hold < OF_LARGEST * largest[response]
    low, _ = grouped_median(response[unrelated], hold[unrelated], len(lift))
    lift = np.maximum(0.0, np.where(counts >= FEW, lift, low))
    spread = np.where(counts >= FEW, 1.4826 * deviation, 0.0)
    enough = np.maximum(np.maximum(HOLD, SPREADS * spread), OF_LARGEST * (largest - lift))
    lifted[known] = hold - lift[response]
    is_support[known] = lifted[known] >= enough[response]
    return lifted, is_support


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
