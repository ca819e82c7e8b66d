"""Two models on the same responses: differences, their intervals, and the first token that parts.

A difference is always the other model's value less the first one's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mindscore.measure.divergence import column_spread

if TYPE_CHECKING:
    from mindscore.measure.evidence import Integers

Pair = tuple[float, float]
"""A value of the first model, and of the other."""

Unit = Literal["nats", "nats per byte"]
"""Of a response's total log-probability, or of that divided by the bytes of its text (UTF-8)."""

Verdict = Literal[
    "less", "more", "unchanged", "less on some", "more on some", "less and more on some"
]

PARTING_NATS = math.log(2)
"""Difference of a token's log-probability from which on two models part: twice as likely."""

CONFIDENCE = 0.95

EQUAL = 1e-6
"""Relative difference within which values are equal, but for rounding."""


@dataclass(frozen=True, slots=True)
class Parting:
    """The first token of a response, counted from 0, on which two models part.

    ``before`` and ``text`` are the response's text up to it and its own, where they are known;
    ``logprobs`` are in nats.
    """

    token: int
    logprobs: Pair
    before: str = ""
    text: str = ""


def parting(
    one: Sequence[float], other: Sequence[float], least: float = PARTING_NATS
) -> Parting | None:
    """Return where the log-probabilities of a response's tokens first differ by ``least`` nats.

    ``None`` where they nowhere do.
    """
    for token, pair in enumerate(zip(one, other, strict=True)):
        if abs(pair[1] - pair[0]) >= least:
            return Parting(token, pair)
    return None


@dataclass(frozen=True, slots=True)
class ComparedResponse:
    """A response under both models, in the comparison's unit.

    ``with_`` and ``without`` are its log-probability with all memories and with none. ``limit`` is
    how much of a difference may be noise; ``assumed``: nobody has measured that. ``other_text`` is
    what the other model says in its place, where that was asked for.
    """

    entry_idx: int
    node_id: str
    conversation: str
    text: str
    with_: Pair
    without: Pair
    limit: float
    assumed: bool = False
    parts_at: Parting | None = None
    other_text: str | None = None

    @property
    def difference(self) -> float:
        """The nats by which it is likelier under the other model, with all memories."""
        return self.with_[1] - self.with_[0]

    @property
    def needs(self) -> Pair:
        """The nats by which all memories together make it likelier, under each model."""
        return self.with_[0] - self.without[0], self.with_[1] - self.without[1]

    @property
    def within_noise(self) -> bool:
        """True if the difference may be noise."""
        return abs(self.difference) <= self.limit


@dataclass(frozen=True, slots=True)
class ComparedEffect:
    """The effect of one memory on one response, under each model: with all, less without it."""

    key: str
    conversation: str
    entry_idx: int
    node_id: str
    effects: Pair
    limit: float

    @property
    def difference(self) -> float:
        """The other model's effect, less the first one's."""
        return self.effects[1] - self.effects[0]


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference, and the ends of its 95 % interval; ``None``: too little to know it by.

    ``all_equal``: so are all values behind it, and there are enough of them. They say nothing of
    how much others would vary, so there is no interval either: one of no width would be certainty.
    """

    difference: float
    low: float | None
    high: float | None
    all_equal: bool = False

    @property
    def sign(self) -> int:
        """-1 or 1 if the whole interval, or each of the equal values, is on that side, else 0."""
        if self.all_equal:
            return (self.difference > 0) - (self.difference < 0)
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


@dataclass(frozen=True, slots=True)
class MemoryComparison:
    """The need of two models for one memory, on average over the responses behind it.

    ``needs`` is the mean effect under each. ``less_on`` and ``more_on`` are its effects that change
    beyond noise and beyond what most memories' effects on the response do, the largest change
    first.
    """

    key: str
    needs: Pair
    change: Difference
    responses: int
    less_on: tuple[ComparedEffect, ...]
    more_on: tuple[ComparedEffect, ...]

    @property
    def verdict(self) -> Verdict:
        """The other model needs it ``less`` or ``more``: the interval of its change says so.

        ``on some``: only that of single responses does. ``unchanged``: none of them.
        """
        if not self.less_on and not self.more_on:
            return "unchanged"
        if self.change.sign < 0 and self.less_on:
            return "less"
        if self.change.sign > 0 and self.more_on:
            return "more"
        if self.less_on and self.more_on:
            return "less and more on some"
        return "less on some" if self.less_on else "more on some"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models over one or several conversations.

    ``mean`` is the mean difference of the responses with all memories, ``need`` that of what all
    memories together do to them; both over responses, with intervals over conversations where there
    are several. ``None``: there is no response. ``numbers`` are those of the conversations, from 1.
    """

    model: str
    other: str
    unit: Unit
    responses: tuple[ComparedResponse, ...]
    effects: tuple[ComparedEffect, ...]
    remarks: tuple[str, ...]
    mean: Difference | None
    need: Difference | None
    memories: tuple[MemoryComparison, ...]
    numbers: Mapping[str, int]

    @classmethod
    def of(
        cls,
        model: str,
        other: str,
        unit: Unit,
        responses: Iterable[ComparedResponse],
        effects: Iterable[ComparedEffect],
        remarks: Iterable[str] = (),
    ) -> Comparison:
        """Return the comparison of ``responses`` and of the memories' ``effects`` on them."""
        responses, effects = tuple(responses), tuple(effects)
        limits = _limits(effects)
        by_key: dict[str, list[ComparedEffect]] = defaultdict(list)
        for effect in effects:
            # Of a memory that is behind a response, nothing was measured.
            if effect.effects != (0.0, 0.0):
                by_key[effect.key].append(effect)
        clusters = _Clusters(len({it.conversation for it in responses}) > 1)
        mean, need, *changes = clusters.differences(
            [
                ([(it, it.difference) for it in responses], None),
                ([(it, it.needs[1] - it.needs[0]) for it in responses], None),
                *(
                    ([(it, it.difference) for it in its], _clear(its, limits))
                    for its in by_key.values()
                ),
            ]
        )
        memories = [
            _memory(key, its, change, _clear(its, limits))
            for (key, its), change in zip(by_key.items(), changes, strict=True)
            if change is not None
        ]
        unique = tuple(dict.fromkeys(remarks))
        talks = dict.fromkeys(it.conversation for it in responses)
        numbers = {talk: number for number, talk in enumerate(talks, start=1)}
        return cls(
            model, other, unit, responses, effects, unique, mean, need, tuple(memories), numbers
        )

    @classmethod
    def joined(cls, parts: Sequence[Comparison]) -> Comparison:
        """Return one comparison of all conversations of ``parts``: of two models, in one unit."""
        first = parts[0]
        return cls.of(
            first.model,
            first.other,
            first.unit,
            (it for part in parts for it in part.responses),
            (it for part in parts for it in part.effects),
            (it for part in parts for it in part.remarks),
        )

    @property
    def conversations(self) -> int:
        """The number of conversations that have a response here."""
        return len(self.numbers)

    @property
    def is_identical(self) -> bool:
        """True if the models have every total in common, to the last digit."""
        pairs = [pair for it in self.responses for pair in (it.with_, it.without)]
        return bool(pairs) and all(one == other for one, other in pairs)

    @property
    def beyond_noise(self) -> list[ComparedResponse]:
        """The responses whose difference is no noise, the largest first."""
        found = [it for it in self.responses if not it.within_noise]
        return sorted(found, key=lambda it: -abs(it.difference))


def _memory(
    key: str,
    effects: Sequence[ComparedEffect],
    change: Difference,
    clear: Sequence[ComparedEffect],
) -> MemoryComparison:
    first, other = (math.fsum(it.effects[at] for it in effects) / len(effects) for at in (0, 1))
    clear = sorted(clear, key=lambda it: -abs(it.difference))
    less_on, more_on = (tuple(it for it in clear if it.difference * sign > 0) for sign in (-1, 1))
    return MemoryComparison(key, (first, other), change, len(effects), less_on, more_on)


def _limits(effects: Iterable[ComparedEffect]) -> dict[tuple[str, str], float]:
    """Return the change of an effect that may be chance, by conversation and response.

    It is noise, or what most memories' effects on the response change by.
    """
    columns: dict[tuple[str, str], list[ComparedEffect]] = defaultdict(list)
    for effect in effects:
        columns[effect.conversation, effect.node_id].append(effect)
    return {
        place: max(column_spread(it.difference for it in column), *(it.limit for it in column))
        for place, column in columns.items()
    }


def _clear(
    effects: Iterable[ComparedEffect], limits: Mapping[tuple[str, str], float]
) -> list[ComparedEffect]:
    """Return those that change by more than may be chance."""
    return [it for it in effects if abs(it.difference) > limits[it.conversation, it.node_id]]


_Measured = ComparedResponse | ComparedEffect


@dataclass(frozen=True, slots=True, eq=False)
class _Values:
    """Values of several groups, in clusters, as a bootstrap takes them."""

    memories: int
    memory: Integers
    conversation: Integers
    conversation_ids: Integers


@dataclass(frozen=True, slots=True)
class _Clusters:
    """The units that are resampled: conversations if there are ``several``, else responses."""

    several: bool

    def _of(self, it: _Measured) -> str:
        return it.conversation if self.several else it.node_id

    def _has_outweighing(self, values: Iterable[tuple[_Measured, float]]) -> bool:
        """Return whether one cluster's sum is larger than those of all others together."""
        sums: dict[str, float] = defaultdict(float)
        for it, value in values:
            sums[self._of(it)] += value
        sizes = [abs(it) for it in sums.values()]
        return max(sizes) > math.fsum(sizes) / 2

    def differences(
        self, groups: Sequence[tuple[Sequence[tuple[_Measured, float]], Sequence[_Measured] | None]]
    ) -> Iterator[Difference | None]:
        """Yield the mean of each group of values with its interval, ``None`` of an empty group.

        Beside the values of a group are those that are more than chance. If there are any, but in
        too few clusters, or one cluster outweighs all others, no interval is known: it would be
        that of a single value.
        """
        import numpy as np

        from mindscore.measure.bootstrap import resampled_means

        rows = [
            (self._of(it), group, value)
            for group, (values, _) in enumerate(groups)
            for it, value in values
        ]
        numbers = {name: at for at, name in enumerate(dict.fromkeys(it[0] for it in rows))}
        rows.sort(key=lambda it: numbers[it[0]])
        counts = [
            0
            if clear and self._has_outweighing(values)
            else len({self._of(it) for it in clear or (it for it, _ in values)})
            for values, clear in groups
        ]
        values = _Values(
            memories=len(groups),
            memory=np.array([group for _, group, _ in rows], np.int64),
            conversation=np.array([numbers[name] for name, _, _ in rows], np.int64),
            conversation_ids=np.arange(len(numbers)),
        )
        nats = np.array([value for _, _, value in rows], float)
        low, high = resampled_means(values, nats, np.array(counts)).intervals(CONFIDENCE)
        for (its, _), a, b in zip(groups, low.tolist(), high.tolist(), strict=True):
            if not its:
                yield None
                continue
            its_own = [value for _, value in its]
            mean = math.fsum(its_own) / len(its)
            if math.isnan(a) or a == b:
                # Values that differ within conversations may have the same mean in each.
                is_one = math.isclose(min(its_own), max(its_own), rel_tol=EQUAL)
                yield Difference(mean, None, None, all_equal=a == b and is_one)
            else:
                yield Difference(mean, a, b)
