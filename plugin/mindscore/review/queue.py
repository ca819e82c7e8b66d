"""The candidates in their order, and what has become of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mindscore.store import CandidateName, Listed

State = Literal["waiting", "accepted", "rejected", "trained"]
STATES: tuple[State, ...] = get_args(State)
NEIGHBOURS = 25
"""Candidates that are listed on either side of the one that is shown."""


def state_of(item: Listed) -> State:
    """What has become of a candidate."""
    if item.sinks:
        return "trained"
    return "waiting" if item.review is None else item.review.decision


def id_of(name: CandidateName) -> str:
    """A candidate of one model, in an address."""
    return f"{name.timestamp_ns}-{name.continuation_hash}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate, its id in addresses, and what has become of it."""

    id: str
    state: State
    item: Listed


class Queue:
    """One model's candidates, the largest divergence first, as a page shows those of one state.

    ``at`` is the id of the one that is asked for; of what is shown, it is the first where that one
    is not among them.
    """

    def __init__(self, items: Sequence[Listed], show: State, at: str) -> None:
        self.entries = [Entry(id_of(item.name), state_of(item), item) for item in items]
        self.counts = Counter(entry.state for entry in self.entries)
        self.show = show
        self.shown = [entry for entry in self.entries if entry.state == show]
        self._at = at
        ids = [entry.id for entry in self.shown]
        self.position = ids.index(at) if at in ids else 0

    def showing(self, show: State) -> Queue:
        """The same candidates, of which those of another state are shown."""
        return Queue([entry.item for entry in self.entries], show, self._at)

    @property
    def current(self) -> Entry | None:
        """The candidate that is shown, if there is any."""
        return self.neighbour(0)

    def neighbour(self, step: int) -> Entry | None:
        """The one so many steps on from the current, if there is one."""
        at = self.position + step
        return self.shown[at] if 0 <= at < len(self.shown) else None

    def find(self, id_: str) -> Entry | None:
        """A candidate in whatever state; ``None`` where it is not kept any more."""
        return next((entry for entry in self.entries if entry.id == id_), None)

    def next_waiting(self) -> Entry | None:
        """The candidate to decide on after the one asked for; after the last, the first."""
        ids = [entry.id for entry in self.entries]
        start = ids.index(self._at) + 1 if self._at in ids else 0
        later = [*self.entries[start:], *self.entries[:start]]
        waiting = (it for it in later if it.state == "waiting" and it.id != self._at)
        return next(waiting, None)

    @property
    def listed(self) -> range:
        """Where those stand, among those shown, that are named in the list."""
        first = max(0, self.position - NEIGHBOURS)
        return range(first, min(len(self.shown), first + 2 * NEIGHBOURS + 1))
