"""The receipt of a screened matrix: exact values, estimates, costs, and what may be missed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import comb
from typing import Literal

from mindscore._util.text import count_of

CONFIDENCE = 0.95
"""Confidence of the bounds on what a screen missed, one-sided."""

MISSED_ABOVE = (1.0, 3.0)
"""Nats above which missed memories are bounded."""


Unit = Literal["sent", "computed"]
"""The unit that costs are told in: tokens sent, or those that run through the model."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated effect of a memory on one response, in nats: signed, and never a score."""

    key: str
    node_id: str
    entry_idx: int
    nats: float


@dataclass(frozen=True, slots=True)
class MissedBound:
    """A bound on the memories that do more than ``nats`` and were only estimated.

    Of ``rest`` memories that the screen did not point at, ``sampled`` were drawn at random and
    measured, and ``found`` of the rest turned out to do more, in the sample or later. With 95 %
    confidence, at most ``most`` of those that were only estimated do more.
    """

    nats: float
    sampled: int
    found: int
    rest: int
    most: int


@dataclass(frozen=True, slots=True)
class ScreenTrial:
    """A method of screening, compared with the first exact rows.

    ``rank_correlation`` is Spearman's over the cells, ``top_found`` the share of responses whose
    largest effect it ranks first; ``None``: too few were measured to tell. ``tokens`` is what it
    cost.
    """

    method: str
    rank_correlation: float | None
    top_found: float | None
    tokens: int


@dataclass(frozen=True, slots=True)
class ScreenReceipt:
    """The account of a screened matrix.

    Attributes:
        method: ``"knock-out"``, ``"hold"``, ``"groups"`` or ``"words"``; ``"exact"`` where
            screening would not have been cheaper, or was cut off before it began.
        trials: the methods that were compared at the start.
        exact: the keys of the memories that were measured exactly, ``sampled`` among them.
        sampled: those of them that were drawn at random from what the screen did not point at.
        estimated: those that have an estimate alone.
        not_looked_at: those that have neither, for want of tokens or since the run was cut off.
            One that failed is in none of these.
        estimates: the estimates of the memories that have no exact row, by memory.
        unit: the unit of ``spent_tokens``, ``screen_tokens`` and ``exact_tokens``: tokens sent, or
            computed where the scorer reuses prefixes.
        spent_tokens: what the whole run took.
        screen_tokens: what of it made estimates, not exact rows.
        exact_tokens: what it would have taken with every memory measured exactly; a control of the
            places is in both.
        error_median: median of ``|estimate - exact|`` on the sample's cells, in nats; so too
            ``error_p95``, the 95th percentile.
        rank_correlation: Spearman's, of estimates and exact values on the sample's cells.
        missed: bounds on what was missed, by size.
        together: the largest effect on a response, in nats, of removing together all memories that
            are only estimated; ``None``: not measured.
        remarks: lines on what did not go as planned.
    """

    method: str
    trials: tuple[ScreenTrial, ...] = ()
    exact: tuple[str, ...] = ()
    sampled: tuple[str, ...] = ()
    estimated: tuple[str, ...] = ()
    not_looked_at: tuple[str, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    unit: Unit = "sent"
    spent_tokens: int = 0
    screen_tokens: int = 0
    exact_tokens: int = 0
    error_median: float | None = None
    error_p95: float | None = None
    rank_correlation: float | None = None
    missed: tuple[MissedBound, ...] = ()
    together: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def error(self) -> float | None:
        """The nats that an estimate may be wrong by: as large as 95 % of the sample's errors.

        The median's where that is not known; ``None``: nothing was compared.
        """
        return self.error_median if self.error_p95 is None else self.error_p95

    def as_of_now(
        self, measured: Collection[str], estimates: tuple[Estimate, ...]
    ) -> ScreenReceipt | None:
        """Return the receipt where memories may have been measured or changed since it was made.

        ``measured`` have exact rows now; the others have the ``estimates``. ``None``: every memory
        that it was to tell of has been measured.
        """
        left = dict.fromkeys(it.key for it in estimates)
        unseen = tuple(it for it in self.not_looked_at if it not in measured and it not in left)
        estimated = tuple(it for it in self.estimated if it in left)
        own = {*self.exact, *self.estimated, *self.not_looked_at}
        since = sum(it in measured for it in (*self.estimated, *self.not_looked_at))
        if since and not (left or unseen):
            return None
        gone = len(own - {*measured, *left, *unseen})
        older = len(left.keys() - own)
        told = (
            (since, "measured since this screen"),
            (gone, "changed or forgotten since this screen"),
            (older, "estimated by an earlier screen, of which this says nothing"),
        )
        remarks = tuple(
            f"{count_of(count, 'memory was', 'memories were')} {what}"
            for count, what in told
            if count
        )
        return replace(
            self,
            exact=tuple(
                it for it in (*self.exact, *self.estimated, *self.not_looked_at) if it in measured
            ),
            estimated=(*estimated, *(it for it in left if it not in own)),
            not_looked_at=unseen,
            estimates=estimates,
            remarks=(*self.remarks, *remarks),
        )


def most_in_population(population: int, sampled: int, found: int) -> int:
    """Return how many of ``population`` may have a property, with confidence ``CONFIDENCE``.

    ``found`` of ``sampled``, drawn uniformly without replacement, have it. The bound is the largest
    number under which so few are found with a probability of at least ``1 - CONFIDENCE``
    (hypergeometric, one-sided; Buonaccorsi 1987, The American Statistician 41(3), 215-218).
    """
    low, high = found, population - (sampled - found)
    while low < high:
        middle = (low + high + 1) // 2
        if _at_most(found, population, sampled, middle) >= 1 - CONFIDENCE:
            low = middle
        else:
            high = middle - 1
    return low


def _at_most(found: int, population: int, sampled: int, having: int) -> float:
    """Return the probability that a sample has at most ``found`` of ``having`` in a population."""
    ways = sum(
        comb(having, it) * comb(population - having, sampled - it) for it in range(found + 1)
    )
    return ways / comb(population, sampled)


def missed_bound(nats: float, rest: int, sampled: int, found: int, found_later: int) -> MissedBound:
    """Return the bound of memories above ``nats`` that were only estimated.

    ``found`` of the sample do more, and ``found_later`` of the rest were measured afterwards and do
    more: the sample's bound holds for all of the rest, so that these are none that were missed.
    """
    known = found + found_later
    most = max(0, most_in_population(rest, sampled, found) - known)
    return MissedBound(nats, sampled, known, rest, most)


def missed_bounds(
    largest: Mapping[str, float], sampled: Collection[str]
) -> tuple[MissedBound, ...]:
    """Return the bounds for each of ``MISSED_ABOVE``.

    ``largest``: the most nats that each memory of the rest was measured to do, 0.0 where it was
    not; ``sampled`` are those of the rest that were drawn.
    """
    bounds = []
    for nats in MISSED_ABOVE:
        more = {key for key, it in largest.items() if it > nats}
        found = len(more & set(sampled))
        bounds.append(missed_bound(nats, len(largest), len(sampled), found, len(more) - found))
    return tuple(bounds)
