"""Memories that are hidden from responses: in groups, then one by one where a group matters.

Each response has groups of its own that matter to it, and to hide a memory from one response takes
no more than the tokens of that: few memories are hidden from it by themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import ceil, sqrt

from mindscore.measure.screening.spans import NO_TOKENS, MemorySpans, Tokens

MOST_LEAD = 64
"""Tokens before a response, since the last one, that memories are hidden from besides, at most."""

LIVE = 2
"""Groups that are expected to matter to a response."""

SMALLEST = 0.1
"""Nats below which what a group does to a response is not looked into."""

Group = tuple[str, ...]
Effects = Mapping[str, float]
"""Nats by the node id of a response."""


class HiddenGroups:
    """Groups of ``keys`` to hide in the prompt of that ``index``, for tokens of ``share`` in all.

    ``lead`` is the number of tokens before each response that they are hidden from besides: as many
    as the groups take half of ``share`` with.
    """

    def __init__(self, spans: MemorySpans, index: int, keys: Iterable[str], share: Tokens) -> None:
        self._spans = spans
        self._index = index
        self._share = share
        self.groups = self._grouped(sorted(keys, key=lambda key: spans.spans[key][index][0]))
        self.lead = MOST_LEAD
        while self.lead and not self.cost.within(share.times(0.5)):
            self.lead //= 2

    @property
    def cost(self) -> Tokens:
        """The tokens that hiding each group from all responses behind it takes."""
        return self._spans.hiding(self.groups, self._index, self.rows(None))

    def rows(self, responses: Collection[str] | None) -> list[tuple[int, int]]:
        """Return ``MemorySpans.rows`` of ``responses``, or of all."""
        its = self._spans.rows(self._index, self.lead)
        return [row for node_id, row in its.items() if responses is None or node_id in responses]

    def _grouped(self, keys: Sequence[str]) -> list[Group]:
        # The fewest sets in all, with the members of LIVE groups one by one.
        size = max(1, ceil(sqrt(len(keys) / LIVE)))
        found: list[Group] = []
        for first in range(0, len(keys), size):
            group = tuple(keys[first : first + size])
            each = (self._spans.behind([key], self._index) for key in group)
            # One that is a response itself has no effect on that.
            is_alone = self._spans.behind(group, self._index) != set[str]().union(*each)
            found += [(key,) for key in group] if is_alone else [group]
        return found

    def to_divide(self, effects: Sequence[Effects]) -> dict[Group, set[str]]:
        """Return groups, with the responses for which their members are to be hidden one by one.

        ``effects`` are those of the groups. The largest are looked into first, for what is left of
        the share, or as many tokens as the groups took.
        """
        cost = self.cost
        room = max(self._share.minus(cost), cost)
        cells = [
            (abs(nats), group, node_id)
            for group, its in zip(self.groups, effects, strict=True)
            for node_id, nats in its.items()
            if len(group) > 1 and abs(nats) >= SMALLEST
        ]
        rows = self._spans.rows(self._index, self.lead)
        again = self._spans.hiding((), self._index, ())
        chosen: dict[Group, set[str]] = {}
        taken = NO_TOKENS
        for _, group, node_id in sorted(cells, reverse=True):
            singles = [(key,) for key in group]
            cost = self._spans.hiding(singles, self._index, [rows[node_id]])
            # The prompt's own tokens count once for a group.
            taken = taken.plus(cost.minus(again) if group in chosen else cost)
            if not taken.within(room):
                break
            chosen.setdefault(group, set()).add(node_id)
        return chosen
