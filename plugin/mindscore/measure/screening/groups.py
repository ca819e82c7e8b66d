"""Adaptive group testing: memories removed together, and divided where that does something.

Dorfman (1943, The Annals of Mathematical Statistics 14(4)) tests samples in groups, and the members
of those that show something; here each response is an outcome of its own, so that halves of several
groups are removed by one prompt where they matter to different responses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

FEWEST_GROUPS = 12
"""Groups that memories are divided into at first, at least."""

LARGEST_GROUP = 40
"""Memories of a group, at most."""

LIFT_RANK = 0.2
"""Share of the groups that are taken to do no more to a response than any text of their length."""

FEW_UNTOUCHED = 5
"""Responses that no group matters to, below which the lift of a prompt is not fitted to them."""

Effects = Mapping[str, float]
"""Nats by response."""


@dataclass(slots=True)
class Group:
    """Memories and what removing them together did, beyond what any text of their length does.

    ``live`` are the responses for which they are to be told apart.
    """

    keys: tuple[str, ...]
    effects: dict[str, float]
    live: frozenset[str] = frozenset()
    other_half: Group | None = field(default=None, repr=False)

    @property
    def largest(self) -> float:
        """The largest effect on a live response, in nats, of either sign."""
        return max((abs(self.effects[it]) for it in self.live), default=0.0)


class GroupSearch:
    """Finds the memories that matter to responses by removing groups of them.

    ``lengths`` are the memories' tokens; ``weights`` say how likely each is to matter; an effect of
    fewer than ``least`` nats is not looked into. Ask ``passes`` for the sets to remove, tell
    ``take`` what each did, in the same order, and go on until there are none, or for as long as
    tokens last.
    """

    def __init__(
        self, lengths: Mapping[str, int], weights: Mapping[str, float], least: float
    ) -> None:
        self._lengths = lengths
        self._weights = weights
        self._least = least
        self._lift: dict[str, float] = {}
        self._groups: list[Group] = []
        self._asked: list[list[tuple[Group, tuple[str, ...]]]] = []

    def first_passes(self) -> list[tuple[str, ...]]:
        """Return the groups to remove first, one a prompt: of equal weight, and in order."""
        count = first_groups(len(self._lengths))
        return divide(list(self._lengths), self._weights, count)

    def take_first(self, removed: Sequence[tuple[str, ...]], effects: Sequence[Effects]) -> None:
        """Take note of what removing each of the first groups did to each response it precedes."""
        self._lift = _general_lift([self._tokens(keys) for keys in removed], effects)
        for keys, its in zip(removed, effects, strict=True):
            tokens = self._tokens(keys)
            beyond = {it: nats - self._lift.get(it, 0.0) * tokens for it, nats in its.items()}
            self._add(Group(keys, beyond), beyond)

    def lead(self, keys: tuple[str, ...], effects: Effects) -> None:
        """Look into a group that has to do with more than its members do by the estimates."""
        self._groups.append(Group(keys, dict(effects), frozenset(effects)))

    def passes(self, most: int) -> list[tuple[str, ...]]:
        """Return at most ``most`` sets of memories to remove next, the most telling first.

        Each has halves of groups that matter to different responses.
        """
        left = [it for it in self._groups if len(it.keys) > 1 and it.live]
        left.sort(key=lambda it: -it.largest)
        passes: list[tuple[set[str], list[tuple[Group, tuple[str, ...]]]]] = []
        for group in left:
            half = divide(list(group.keys), self._weights, 2)[0]
            free = next((it for it in passes if not it[0] & group.live), None)
            if free is None and len(passes) < most:
                free = (set(), [])
                passes.append(free)
            if free is not None:
                free[0].update(group.live)
                free[1].append((group, half))
        self._asked = [halves for _, halves in passes]
        return [tuple(key for _, half in halves for key in half) for halves in self._asked]

    def take(self, effects: Sequence[Effects]) -> None:
        """Take note of what removing each of the sets that were asked for last did."""
        for halves, its in zip(self._asked, effects, strict=True):
            tokens = sum(self._tokens(half) for _, half in halves)
            busy = {it for group, _ in halves for it in group.live}
            factor = self._lift_factor(its, busy, tokens)
            for group, half in halves:
                self._divide(group, half, its, factor * tokens)

    @property
    def is_done(self) -> bool:
        """Whether no group is left to be divided."""
        return not any(len(it.keys) > 1 and it.live for it in self._groups)

    @property
    def rounds_left(self) -> int:
        """The number of times that the largest group that matters is to be divided yet."""
        sizes = [len(it.keys) for it in self._groups if it.live]
        return (max(sizes, default=1) - 1).bit_length()

    def live_share(self) -> float:
        """Return the share of the memories that are in groups that matter."""
        live = sum(len(it.keys) for it in self._groups if it.live)
        return live / max(1, len(self._lengths))

    def estimates(self, shares: Mapping[str, Effects]) -> dict[str, dict[str, float]]:
        """Return each memory's estimate for each response that its group precedes.

        What a group does is divided among its members by their ``shares`` of the response, or
        evenly where none has any.
        """
        found: dict[str, dict[str, float]] = {}
        for group in self._groups:
            for node_id, nats in group.effects.items():
                its = [shares.get(key, {}).get(node_id, 0.0) for key in group.keys]
                whole = sum(its)
                for key, share in zip(group.keys, its, strict=True):
                    part = share / whole if whole else 1 / len(group.keys)
                    found.setdefault(key, {})[node_id] = nats * part
        return found

    def _tokens(self, keys: Iterable[str]) -> int:
        return sum(self._lengths[key] for key in keys)

    def _add(self, group: Group, asked: Collection[str]) -> None:
        live = (it for it in asked if abs(group.effects[it]) >= self._least)
        group.live = frozenset(live)
        self._groups.append(group)

    def _lift_factor(self, effects: Effects, busy: Collection[str], tokens: int) -> float:
        """Return how much larger the lift of so many tokens is than their number says.

        It is the least-squares slope of what happened to the responses that no group here matters
        to, on what their lift by token says.
        """
        free = [
            (self._lift[it] * tokens, nats)
            for it, nats in effects.items()
            if it not in busy and self._lift.get(it)
        ]
        square = sum(expected * expected for expected, _ in free)
        if len(free) < FEW_UNTOUCHED or not square:
            return 1.0
        slope = sum(expected * nats for expected, nats in free) / square
        return min(3.0, max(0.0, slope))

    def _divide(
        self, group: Group, half: tuple[str, ...], effects: Effects, lifting: float
    ) -> None:
        """Put two groups in the place of one: the half that was removed, and the rest."""
        self._groups.remove(group)
        rest = tuple(key for key in group.keys if key not in half)
        share = self._tokens(half) / max(1, self._tokens(group.keys))
        of_half, of_rest = {}, {}
        for it, nats in group.effects.items():
            if it in group.live and it in effects:
                of_half[it] = effects[it] - self._lift.get(it, 0.0) * lifting
            elif it in group.live:
                # Behind all of the half, before some of the rest: nothing can have happened to it.
                of_half[it] = 0.0
            else:
                of_half[it] = nats * share
            of_rest[it] = nats - of_half[it]
        self._add(Group(half, of_half), group.live)
        self._add(Group(rest, of_rest), group.live)


def first_groups(memories: int) -> int:
    """Return how many groups so many memories are divided into at first."""
    return min(memories, max(FEWEST_GROUPS, -(-memories // LARGEST_GROUP)))


def divide(keys: Sequence[str], weights: Mapping[str, float], count: int) -> list[tuple[str, ...]]:
    """Return ``keys``, in order, in ``count`` stretches of about the same weight, none empty."""
    total, found, stretch, heavy = sum(weights[key] for key in keys), [], list[str](), 0.0
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


def _general_lift(tokens: Sequence[int], effects: Sequence[Effects]) -> dict[str, float]:
    """Return what removing any token does to each response, in nats.

    Of the groups before a response, most of which have nothing to do with it, it is what one of
    those does by token that do the least.
    """
    by_response: dict[str, list[float]] = defaultdict(list)
    for count, its in zip(tokens, effects, strict=True):
        for node_id, nats in its.items():
            if count:
                by_response[node_id].append(nats / count)
    found = {}
    for node_id, rates in by_response.items():
        if len(rates) > 2:
            rates.sort(key=abs)
            found[node_id] = rates[int(LIFT_RANK * len(rates))]
    return found
