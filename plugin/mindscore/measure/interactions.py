"""Memories whose effects do not add up: they hide each other, or need each other.

The interaction of memories on a response is what removing them together costs, less the sum of what
removing each costs. In the game in which a set of memories is worth what removing it costs, that is
the Harsanyi dividend of a pair (Harsanyi 1963, International Economic Review 4(2), 194-220), with
all other memories there; of a larger set, it is the sum of the dividends of its subsets of two and
more. Where it is positive they hide each other, and where it is negative they need each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from math import sqrt
from statistics import median
from typing import Literal, NamedTuple, Self

from mindhooks import MemoryScore, ResponseDivergence
from mindscore.measure.divergence import OF_MEDIAN, column_spreads, noise_limit

HOLD = 1.0
"""Nats beyond the general lift from which on a memory alone counts as a response's support."""

OF_LARGEST = 0.5
"""Share of a response's largest hold that a memory's must reach."""

OF_HOLD = 0.1
"""Share of its hold below which a memory's drop counts as nothing."""

FEW = 5
"""Memories from which on most are taken to have nothing to do with a response."""

SPREADS = 3.0
"""Spreads of the general lift that a hold must exceed it by."""

MOST_GROUPS = 10
"""Groups of a run that are confirmed, by one prompt each."""

MOST_PAIRS = 10
"""Pairs of a run that may need each other and are confirmed, by one prompt each."""

MOST_OF_A_RESPONSE = 8
"""Memories of one response that are paired, those with the largest drops."""

SURE = 2.0
"""Limits that both drops of a pair must reach: the largest of many are large by chance, too."""

OF_DROP = 0.5
"""Share of its drop that a memory may do without the other, if they need each other."""

LEAST = 1.0
"""Nats below which no effect counts, however little noise there is."""


@dataclass(frozen=True, slots=True)
class InteractionEntry:
    """The interaction of memories on one response, in nats.

    ``together`` is what removing all of them costs, ``apart`` the sum of what removing each costs,
    ``interaction`` the former less the latter.
    """

    entry_idx: int
    node_id: str
    together: float
    apart: float
    interaction: float


@dataclass(frozen=True, slots=True)
class Interaction:
    """Memories whose effects do not add up, and the responses for which they do not.

    ``hide``: removing them together costs more than removing each. ``need``: of two, either one
    removed costs what both do.
    """

    keys: tuple[str, ...]
    entries: tuple[InteractionEntry, ...]
    kind: Literal["hide", "need"]

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The responses."""
        return tuple(entry.node_id for entry in self.entries)

    @property
    def relation(self) -> str:
        """The words between the memories and the responses."""
        if self.kind == "need":
            return "need each other: either one removed costs what both do, for"
        return "hide each other in part: removed together, they cost more than apart, for"


@dataclass(frozen=True, slots=True)
class RedundantGroup:
    """Memories that hide each other, and the responses for which they do.

    Each alone supports those responses, none is missed alone, and all together are missed.
    """

    keys: tuple[str, ...]
    node_ids: tuple[str, ...]

    @property
    def relation(self) -> str:
        """The words between the memories and the responses."""
        each = "either" if len(self.keys) == 2 else "any"
        return f"hide each other: {each} is enough for"


@dataclass(frozen=True, slots=True)
class FoundInteractions:
    """The memories of one matrix that hide or need each other, with hashes of their texts."""

    redundant: tuple[RedundantGroup, ...]
    interactions: tuple[Interaction, ...]
    text_hashes: Mapping[str, str]

    @classmethod
    def of(
        cls,
        redundant: Iterable[RedundantGroup],
        interactions: Iterable[Interaction],
        text_hashes: Mapping[str, str],
    ) -> Self:
        """Return what a run found, with the hashes of the memories that it names."""
        groups, others = tuple(redundant), tuple(interactions)
        sets = [*(it.keys for it in groups), *(it.keys for it in others)]
        named = dict.fromkeys(chain.from_iterable(sets))
        return cls(groups, others, {key: text_hashes.get(key, "") for key in named})

    def as_of_now(self, text_hashes: Mapping[str, str], places: Mapping[str, int]) -> Self:
        """Return what holds still, of memories that have the same texts in ``text_hashes``.

        ``places`` are the responses that are left, each with its index in the conversation.
        """

        def is_same(keys: Iterable[str]) -> bool:
            return all(text_hashes.get(key) == self.text_hashes.get(key, "") for key in keys)

        def left(found: Interaction) -> Interaction:
            return replace(
                found,
                entries=tuple(
                    replace(it, entry_idx=places[it.node_id])
                    for it in found.entries
                    if it.node_id in places
                ),
            )

        groups = [
            replace(it, node_ids=tuple(id_ for id_ in it.node_ids if id_ in places))
            for it in self.redundant
            if is_same(it.keys)
        ]
        others = [left(it) for it in self.interactions if is_same(it.keys)]
        return replace(
            self,
            redundant=tuple(it for it in groups if it.node_ids),
            interactions=tuple(it for it in others if it.entries),
        )

    def beside(
        self, earlier: Self, measured: Collection[str], untried: Collection[tuple[str, ...]]
    ) -> Self:
        """Return these, and what an ``earlier`` run found of sets that this one has not looked at.

        It has not ``measured`` all of their memories, or has left the set ``untried``.
        """

        def is_left(keys: tuple[str, ...]) -> bool:
            return keys in untried or not {*keys} <= {*measured}

        groups = [it for it in earlier.redundant if is_left(it.keys)]
        others = [it for it in earlier.interactions if is_left(it.keys)]
        texts = {**earlier.text_hashes, **self.text_hashes}
        return type(self).of((*self.redundant, *groups), (*self.interactions, *others), texts)


class ToldInteraction(NamedTuple):
    """Memories that do not add up, in words: ``relation`` stands before the responses ``on``."""

    keys: tuple[str, ...]
    relation: str
    on: list[int]


def told_once(
    redundant: Iterable[RedundantGroup],
    interactions: Iterable[Interaction],
    numbers: Mapping[str, int],
) -> list[ToldInteraction]:
    """Return what there is to tell: groups, and interactions that are not those of a group.

    ``numbers`` are the responses' indexes in the conversation, by node id.
    """
    groups = list(redundant)
    keys = {group.keys for group in groups}
    others = [it for it in interactions if it.kind == "need" or it.keys not in keys]
    told: list[RedundantGroup | Interaction] = [*groups, *others]
    return [
        ToldInteraction(
            it.keys, it.relation, [numbers[id_] for id_ in it.node_ids if id_ in numbers]
        )
        for it in told
    ]


@dataclass(frozen=True, slots=True)
class NeedCandidate:
    """Two memories that may need each other, and the responses for which they may.

    ``stake`` is the sum of the smaller of both drops over those, in nats.
    """

    keys: tuple[str, str]
    node_ids: tuple[str, ...]
    stake: float


class EffectLimits:
    """The nats within which an effect, or an interaction, cannot be told from chance.

    It is what noise or most memories do to that response, as in a ranking, and no less than what
    noise does to most responses: one repetition of one response says little.
    """

    def __init__(self, scores: Iterable[MemoryScore]) -> None:
        rows = [score.divergences for score in scores]
        self._spreads = column_spreads(rows)
        noise: dict[str, float] = {}
        for cell in (cell for row in rows for cell in row):
            if cell.noise:
                noise[cell.node_id] = max(cell.noise, noise.get(cell.node_id, 0.0))
        self._usual = OF_MEDIAN * median(noise.values()) if noise else 0.0

    def of(self, cell: ResponseDivergence) -> float:
        """Return the limit of an effect."""
        spread = self._spreads.get(cell.node_id, 0.0)
        return max(LEAST, self._usual, noise_limit(cell.noise, spread))

    def of_interaction(self, cells: Sequence[ResponseDivergence]) -> float:
        """Return the limit of the interaction of memories with the effects ``cells``.

        An effect is the difference of two totals. An interaction of n memories takes n + 2: that
        with all memories n - 1 times, those without each, and that without all n. Variances add up.
        """
        count = len(cells)
        totals = (count - 1) ** 2 + count + 1
        return max(map(self.of, cells)) * sqrt(totals / 2)


def redundant_candidates(scores: Iterable[MemoryScore | None]) -> list[RedundantGroup]:
    """Return groups of memories that may hide each other, at most ``MOST_GROUPS``.

    Each supports a response alone (hold) by clearly more than unrelated memories do, and the
    response is as likely without it (drop near zero). Those with the most responses come first.
    That they do each other's work is shown only when all are removed together: ``confirmed``.
    """
    known = [score for score in scores if score is not None and score.hold is not None]
    holds: dict[str, list[tuple[str, float, ResponseDivergence | None]]] = defaultdict(list)
    for score in known:
        drops = {cell.node_id: cell for cell in score.divergences}
        for held in score.hold or ():
            holds[held.node_id].append((score.key, held.signed, drops.get(held.node_id)))
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for node_id, found in holds.items():
        lift, spread = general_lift([signed for _, signed, _ in found])
        largest = max(signed for _, signed, _ in found) - lift
        enough = max(HOLD, SPREADS * spread, OF_LARGEST * largest)
        hidden = tuple(
            key
            for key, signed, drop in found
            if signed - lift >= enough and drop is not None and _is_nothing(drop, signed - lift)
        )
        if len(hidden) > 1:
            together[hidden].append(node_id)
    groups = [RedundantGroup(keys, tuple(node_ids)) for keys, node_ids in together.items()]
    return sorted(groups, key=lambda group: -len(group.node_ids))[:MOST_GROUPS]


def need_candidates(
    scores: Collection[MemoryScore], of_all: Mapping[str, float]
) -> list[NeedCandidate]:
    """Return pairs of memories that may need each other, at most ``MOST_PAIRS``.

    A response is clearly less likely without either (drop). Where holds are known, either alone
    does little, or the drops add up to more than ``of_all``: what removing all memories costs, in
    nats by node id, where it is known. The pairs with the most at stake come first.
    """
    limits = EffectLimits(scores)
    large: dict[str, dict[str, ResponseDivergence]] = defaultdict(dict)
    holds: dict[str, dict[str, float]] = defaultdict(dict)
    for score in scores:
        for cell in score.divergences:
            if cell.signed >= SURE * limits.of(cell):
                large[cell.node_id][score.key] = cell
        for held in score.hold or ():
            holds[held.node_id][score.key] = held.signed
    stakes: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for node_id, drops in large.items():
        alone, all_ = holds[node_id], of_all.get(node_id)
        # The lift by memories that are not missed: most may be, and have to do with the response.
        lift = max(0.0, median([it for key, it in alone.items() if key not in drops] or [0.0]))
        most = set(sorted(drops, key=lambda key: -drops[key].signed)[:MOST_OF_A_RESPONSE])
        for pair in combinations([it for it in drops.items() if it[0] in most], 2):
            cells = [cell for _, cell in pair]
            apart = sum(cell.signed for cell in cells)
            is_known = all(key in alone for key, _ in pair)
            is_little = all(
                alone.get(key, 0.0) - lift <= OF_DROP * cell.signed for key, cell in pair
            )
            is_more = all_ is not None and apart - all_ > limits.of_interaction(cells)
            if not is_known or is_little or is_more:
                keys = (pair[0][0], pair[1][0])
                stakes[keys][node_id] = min(cell.signed for cell in cells)
    pairs = [NeedCandidate(keys, tuple(its), sum(its.values())) for keys, its in stakes.items()]
    return sorted(pairs, key=lambda pair: -pair.stake)[:MOST_PAIRS]


def find_interactions(
    keys: tuple[str, ...],
    node_ids: Collection[str],
    scores: Collection[MemoryScore],
    without: Iterable[ResponseDivergence],
) -> Iterator[Interaction]:
    """Yield the interactions of the memories ``keys`` on the responses ``node_ids``, by kind.

    ``scores`` are the rows of the matrix; ``without`` is the effect of removing all of ``keys``
    together. What cannot be told from chance is left out.
    """
    limits = EffectLimits(scores)
    rows = [
        {cell.node_id: cell for cell in score.divergences} for score in scores if score.key in keys
    ]
    entries: dict[Literal["hide", "need"], list[InteractionEntry]] = {"hide": [], "need": []}
    for it in without:
        cells = [row[it.node_id] for row in rows if it.node_id in row]
        if it.node_id not in node_ids or len(cells) < len(keys):
            continue
        entry = _entry(it, cells)
        limit = limits.of_interaction(cells)
        if entry.interaction > limit and it.signed >= limits.of(it):
            entries["hide"].append(entry)
        elif entry.interaction < -limit and _is_need(it, cells):
            entries["need"].append(entry)
    for kind, found in entries.items():
        if found:
            yield Interaction(keys, tuple(found), kind)


def confirmed(group: RedundantGroup, found: Iterable[Interaction]) -> RedundantGroup | None:
    """Return ``group`` with the responses that miss it; ``None`` if none does.

    ``found`` are its interactions: those responses are among those for which it hides.
    """
    missed = {node_id for it in found if it.kind == "hide" for node_id in it.node_ids}
    left = tuple(node_id for node_id in group.node_ids if node_id in missed)
    return RedundantGroup(group.keys, left) if left else None


def _entry(together: ResponseDivergence, cells: Sequence[ResponseDivergence]) -> InteractionEntry:
    apart = sum(cell.signed for cell in cells)
    both = together.signed
    return InteractionEntry(together.entry_idx, together.node_id, both, apart, both - apart)


def _is_need(together: ResponseDivergence, cells: Sequence[ResponseDivergence]) -> bool:
    """Return whether either of two memories does little without the other."""
    if len(cells) != 2:
        return False
    one, other = (cell.signed for cell in cells)
    return (
        min(one, other) > 0
        and together.signed - other <= OF_DROP * one
        and together.signed - one <= OF_DROP * other
    )


def general_lift(holds: Sequence[float]) -> tuple[float, float]:
    """Return what an unrelated memory does alone to a response, and the spread of that, in nats.

    Nearly any text before a response makes it a little likelier. It is the median of all memories,
    where there are enough of them, else of those far below the largest.
    """
    if len(holds) >= FEW:
        lift = median(holds)
        spread = 1.4826 * median(abs(it - lift) for it in holds)
    else:
        unrelated = [it for it in holds if it < OF_LARGEST * max(holds)]
        lift, spread = median(unrelated) if unrelated else 0.0, 0.0
    return max(0.0, lift), spread


def _is_nothing(drop: ResponseDivergence, hold: float) -> bool:
    return abs(drop.signed) <= max(OF_HOLD * hold, drop.noise or 0.0)
