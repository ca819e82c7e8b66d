"""Adaptive group testing: memories removed together, and divided where that does something.

Dorfman (1943, The Annals of Mathematical Statistics 14(4)) tests samples in groups, and the members
of those that show something; here each response is an outcome of its own, so that halves of several
groups are removed by one prompt where they matter to different responses.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import sqrt
from statistics import median

FEWEST_GROUPS = 10
"""Groups that memories are divided into at first, at least."""

LARGEST_GROUP = 64
"""Memories of a group, at most."""

LIFT_RANK = 0.2
"""Share of the groups that are taken to do no more to a response than any text of their length."""

MOST_SLOPE = 3.0
"""Lift that is expected of a prompt, by what its tokens do one by one, at most."""

NOISE_RANK = 0.4
"""Share of the groups whose effects on a response are taken for noise."""

OF_SPREAD = 0.524
"""Standard deviations that this share of normal values is within."""

RESIDUE = 0.1
"""Share of a group's effect below which that of one half is an error in that of the other."""

LEAD = 1.0
"""Nats beyond the sum of the estimates from which on memories removed together are looked into."""

SPREADS = 4.0
"""Spreads over the responses that such an effect must exceed besides."""

NEIGHBOURS = 12
"""Responses on either side that show how large the lift of a prompt is there."""

FEW_UNTOUCHED = 5
"""Responses that no group matters to, below which the lift of a prompt is not fitted to them."""

Effects = Mapping[int, float]
"""Nats by response, which are numbered in order."""


@dataclass(frozen=True, slots=True)
class Place:
    """A memory's number of tokens, and the number of the first response behind it."""

    tokens: int
    reach: int


@dataclass(slots=True)
class Group:
    """Memories and what removing them together did, beyond what any text of their length does.

    ``live`` are the responses for which they are to be told apart.
    """

    keys: tuple[str, ...]
    effects: dict[int, float]
    live: frozenset[int] = frozenset()

    @property
    def largest(self) -> float:
        """The largest effect on a live response, in nats, of either sign."""
        return max((abs(self.effects[it]) for it in self.live), default=0.0)


class GroupSearch:
    """Finds the memories that matter to responses by removing groups of them.

    ``places`` are the memories, in the order in which they are grouped; ``weights`` say how likely
    each is to matter; an effect of fewer than ``least`` nats is not looked into; ``usual`` is how
    much a memory that does not matter does to each response. Ask ``passes`` for the sets to remove,
    tell ``take`` what each did, in the same order, and go on until there are none, or for as long
    as tokens last. What was removed is told of the responses behind it.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        weights: Mapping[str, float],
        least: float,
        usual: Effects,
    ) -> None:
        self._places = places
        self._weights = weights
        self._least = least
        self._usual = usual
        self._lift: dict[int, float] = {}
        self._noise: dict[int, float] = {}
        self._size = 1
        self._groups: list[Group] = []
        self._asked: list[list[tuple[Group, tuple[str, ...]]]] = []

    def first_passes(self) -> list[tuple[str, ...]]:
        """Return the groups to remove first, one a prompt: of equal weight, and in order."""
        return divide(list(self._places), self._weights, first_groups(len(self._places)))

    def take_first(self, removed: Sequence[tuple[str, ...]], effects: Sequence[Effects]) -> None:
        """Take note of what removing each of the first groups did to each response it precedes."""
        tokens = [_TokensBefore([self._places[key] for key in keys]) for keys in removed]
        # Where most groups matter, what the others do is no more than their members do one by one.
        self._size = max(map(len, removed), default=1)
        most = {it: self._size * nats for it, nats in self._usual.items()}
        self._lift = {
            it: _within(rate, most[it] / max(before[it] for before in tokens))
            for it, rate in _general_lift(tokens, effects).items()
        }
        found = [
            Group(
                keys, {it: nats - self._lift.get(it, 0.0) * before[it] for it, nats in its.items()}
            )
            for keys, before, its in zip(removed, tokens, effects, strict=True)
        ]
        noise = _noise([group.effects for group in found])
        self._noise = {it: _within(nats, most[it]) for it, nats in noise.items()}
        for group in found:
            self._add(group, group.effects)

    def suspects(self, words: Mapping[str, Effects]) -> list[str]:
        """Return memories whose ``words`` may say that they are why their groups matter.

        It is the one that shares most with the responses in question, of each group that takes
        prompts of its own to divide, since others matter to some of these, too. Those of the
        groups that do most come first; groups without any such words have none.
        """
        found = []
        count = Counter(it for group in self._groups for it in group.live)
        crowded = [group for group in self._groups if any(count[it] > 1 for it in group.live)]
        for group in sorted(crowded, key=lambda it: -it.largest):
            its = {
                key: sum(words.get(key, {}).get(it, 0.0) for it in group.live) for key in group.keys
            }
            best = max(its, key=its.__getitem__)
            if its[best]:
                found.append(best)
        return found

    def explain(self, key: str, row: Effects) -> bool:
        """Take a memory out of its group by what it does; return whether it is why that matters.

        ``row`` is what removing it alone did to each response that it precedes.
        """
        [group] = (it for it in self._groups if key in it.keys)
        self._groups.remove(group)
        beyond = {
            it: nats - self._lift.get(it, 0.0) * self._places[key].tokens
            for it, nats in row.items()
            if it in group.effects
        }
        does_it = any(abs(beyond.get(it, 0.0)) >= self._enough(it) for it in group.live)
        if keys := tuple(it for it in group.keys if it != key):
            left = {it: nats - beyond.get(it, 0.0) for it, nats in group.effects.items()}
            for it in group.live:
                if abs(left[it]) < RESIDUE * abs(group.effects[it]):
                    left[it] = 0.0
            self._add(Group(keys, left), group.live)
        return does_it

    def passes(self, most: int) -> list[tuple[str, ...]]:
        """Return at most ``most`` sets of memories to remove next, the most telling first.

        Each has halves of groups that matter to different responses.
        """
        left = [it for it in self._groups if len(it.keys) > 1 and it.live]
        # Those that matter to late responses go together: the other prompts end before these.
        left.sort(key=lambda it: -max(it.live))
        together = _disjoint(left, len(left))
        if len(together) > most:
            left.sort(key=lambda it: -it.largest)
            together = _disjoint(left, most)
        self._asked = [
            [(it, divide(list(it.keys), self._weights, 2)[0]) for it in groups]
            for groups in together
        ]
        return [tuple(key for _, half in halves for key in half) for halves in self._asked]

    @property
    def ends(self) -> list[int]:
        """The last response that each of the sets asked for last need be told of."""
        return [
            max(response for group, _ in halves for response in group.live) + NEIGHBOURS
            for halves in self._asked
        ]

    def take(self, effects: Sequence[Effects]) -> None:
        """Take note of what removing each of the sets that were asked for last did."""
        for halves, its in zip(self._asked, effects, strict=True):
            before = _TokensBefore([self._places[key] for _, half in halves for key in half])
            expected = {it: self._lift.get(it, 0.0) * before[it] for it in its}
            busy = {it for group, _ in halves for it in group.live}
            free = sorted(its.keys() - busy)
            beyond = {}
            for it in its.keys() & busy:
                # Where the prompt is short, what is removed is a larger part of it.
                at = bisect_right(free, it)
                near = free[max(0, at - NEIGHBOURS) : at + NEIGHBOURS]
                factor = _slope([(expected[each], its[each]) for each in near])
                beyond[it] = its[it] - factor * expected[it]
            count = sum(len(half) for _, half in halves)
            louder = max(1.0, sqrt(count / self._size))
            for group, half in halves:
                self._divide(group, half, beyond, louder)

    @property
    def is_done(self) -> bool:
        """True if no group is left to be divided."""
        return not any(len(it.keys) > 1 and it.live for it in self._groups)

    @property
    def rounds_left(self) -> int:
        """The number of times that the largest group that matters is to be divided yet."""
        sizes = [len(it.keys) for it in self._groups if it.live]
        return (max(sizes, default=1) - 1).bit_length()

    def live_share(self) -> float:
        """Return the share of the memories that are in groups that matter."""
        live = sum(len(it.keys) for it in self._groups if it.live)
        return live / max(1, len(self._places))

    def estimates(self, shares: Mapping[str, Effects]) -> dict[str, dict[int, float]]:
        """Return each memory's estimate for each response that its group precedes.

        What a group does is divided among its members by their ``shares`` of the response, or
        evenly where none has any.
        """
        found: dict[str, dict[int, float]] = {}
        for group in self._groups:
            for response, nats in group.effects.items():
                before = [key for key in group.keys if self._places[key].reach <= response]
                its = [shares.get(key, {}).get(response, 0.0) for key in before]
                whole = sum(its)
                for key, share in zip(before, its, strict=True):
                    part = share / whole if whole else 1 / len(before)
                    lifted = self._lift.get(response, 0.0) * self._places[key].tokens
                    found.setdefault(key, {})[response] = nats * part + lifted
        return found

    def _add(self, group: Group, asked: Collection[int]) -> None:
        group.live = frozenset(it for it in asked if abs(group.effects[it]) >= self._enough(it))
        self._groups.append(group)

    def _enough(self, response: int) -> float:
        return max(self._least, SPREADS * self._noise.get(response, 0.0))

    def _divide(self, group: Group, half: tuple[str, ...], effects: Effects, louder: float) -> None:
        """Put two groups in the place of one: the half that was removed, and the rest.

        What more memories do together varies by as much more as their number's square root.
        """
        self._groups.remove(group)
        rest = tuple(key for key in group.keys if key not in half)
        of_half, of_rest = {}, {}
        for it, nats in group.effects.items():
            if it in group.live:
                # None behind the half: nothing can have happened to it.
                of_half[it] = effects.get(it, 0.0)
            else:
                of_half[it] = nats * len(half) / len(group.keys)
            of_rest[it] = nats - of_half[it]
        for part in (Group(half, of_half), Group(rest, of_rest)):
            for it in group.live:
                least = max(self._enough(it) * louder, RESIDUE * abs(group.effects[it]))
                if abs(part.effects[it]) < least:
                    part.effects[it] = 0.0
            self._add(part, group.live)


class _TokensBefore:
    """The tokens of memories that precede each response, by its number."""

    def __init__(self, places: Sequence[Place]) -> None:
        ordered = sorted(places, key=lambda it: it.reach)
        self._reaches = [it.reach for it in ordered]
        self._sums = [0, *accumulate(it.tokens for it in ordered)]

    def __getitem__(self, response: int) -> int:
        return self._sums[bisect_right(self._reaches, response)]


def _disjoint(groups: Iterable[Group], most: int) -> list[list[Group]]:
    """Return at most ``most`` sets of ``groups`` that matter to different responses."""
    found: list[tuple[set[int], list[Group]]] = []
    for group in groups:
        free = next((it for it in found if not it[0] & group.live), None)
        if free is None and len(found) < most:
            free = (set(), [])
            found.append(free)
        if free is not None:
            free[0].update(group.live)
            free[1].append(group)
    return [its for _, its in found]


def first_groups(memories: int) -> int:
    """Return how many groups so many memories are divided into at first."""
    return min(memories, max(FEWEST_GROUPS, -(-memories // LARGEST_GROUP)))


def divide(keys: Sequence[str], weights: Mapping[str, float], count: int) -> list[tuple[str, ...]]:
    """Return ``keys``, in order, in ``count`` stretches of about the same weight, none empty."""
    total, heavy = sum(weights[key] for key in keys), 0.0
    found: list[tuple[str, ...]] = []
    stretch: list[str] = []
    for index, key in enumerate(keys):
        missing = count - len(found)
        stretch.append(key)
        heavy += weights[key]
        left = len(keys) - index - 1
        enough = heavy >= total * (len(found) + 1) / count - 1e-9
        if missing > 1 and left >= missing - 1 and (enough or left == missing - 1):
            found.append(tuple(stretch))
            stretch = []
    return [*found, tuple(stretch)] if stretch else found


def _general_lift(tokens: Sequence[_TokensBefore], effects: Sequence[Effects]) -> dict[int, float]:
    """Return what removing any token does to each response, in nats.

    Of the groups before a response, most of which have nothing to do with it, it is what one of
    those does by token that do the least.
    """
    by_response: dict[int, list[float]] = defaultdict(list)
    for before, its in zip(tokens, effects, strict=True):
        for response, nats in its.items():
            if before[response]:
                by_response[response].append(nats / before[response])
    found = {
        response: sorted(rates, key=abs)[int(LIFT_RANK * len(rates))]
        for response, rates in by_response.items()
        if len(rates) > 2
    }
    known = sorted(found)
    for response in by_response.keys() - found.keys() if known else ():
        # Of a response that few groups precede, it is taken to be as of the next one.
        found[response] = found[known[min(bisect_right(known, response), len(known) - 1)]]
    return found


def _noise(effects: Sequence[Effects]) -> dict[int, float]:
    """Return the standard deviation of what groups that do not matter do to each response.

    It is taken to be that of half of the responses at least: few groups may agree by chance.
    """
    by_response: dict[int, list[float]] = defaultdict(list)
    for its in effects:
        for response, nats in its.items():
            by_response[response].append(abs(nats))
    found = {
        response: sorted(sizes)[int(NOISE_RANK * len(sizes))] / OF_SPREAD
        for response, sizes in by_response.items()
        if len(sizes) >= FEW_UNTOUCHED
    }
    usual = median(found.values()) if found else 0.0
    return {it: max(usual, found.get(it, 0.0)) for it in by_response}


def _within(value: float, most: float) -> float:
    return max(-most, min(most, value))


def _slope(pairs: Sequence[tuple[float, float]]) -> float:
    """Return how much larger the lift of many tokens is than that of each, times their number.

    It is the least-squares slope of what happened to responses that no group matters to, on what is
    expected of them; 1 where there are too few.
    """
    square = sum(expected * expected for expected, _ in pairs)
    if len(pairs) < FEW_UNTOUCHED or not square:
        return 1.0
    slope = sum(expected * nats for expected, nats in pairs) / square
    return min(MOST_SLOPE, max(0.0, slope))


def unexplained(together: Effects, expected: Effects) -> dict[int, float]:
    """Return what removing memories together did beyond what is expected of them, where much.

    Most responses differ from the sum a little, and all alike where the prompt has become shorter:
    the median over the responses is no lead.
    """
    apart = {it: nats - expected.get(it, 0.0) for it, nats in together.items()}
    if not apart:
        return {}
    middle = median(apart.values()) if len(apart) >= FEW_UNTOUCHED else 0.0
    spread = 1.4826 * median(abs(it - middle) for it in apart.values())
    enough = max(LEAD, SPREADS * spread if len(apart) >= FEW_UNTOUCHED else 0.0)
    return {it: nats - middle for it, nats in apart.items() if abs(nats - middle) >= enough}
