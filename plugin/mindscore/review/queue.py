"""The candidates of a model as the page lists them, and why it lists none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mindscore._util.text import count_of, moment_text
from mindscore.store import CandidateName, Listed, RunRecord
from mindscore.store.reviews import MOST_REJECTED

State = Literal["waiting", "accepted", "rejected", "trained"]
STATES: tuple[State, ...] = get_args(State)
NEIGHBOURS = 25
"""Candidates listed on either side of the shown one."""


def state_of(item: Listed) -> State:
    """Return the state of a candidate."""
    if item.sinks:
        return "trained"
    return "waiting" if item.review is None else item.review.decision


def id_of(name: CandidateName) -> str:
    """Return the id of a candidate in addresses, unique within a model."""
    return f"{name.timestamp_ns}-{name.continuation_hash}"


def distinct(items: Sequence[Listed]) -> list[Listed]:
    """Return candidates without those that are the same response, found again.

    A host that does not say when a response was given may make it new each time. Of those the one
    that was trained on is returned, else the one that was decided on, else the first.
    """
    kept: dict[tuple[str, str, str], Listed] = {}

    def said(item: Listed) -> tuple[str, str, str]:
        return item.name.continuation_hash, item.response_text, item.prior_context

    def settled(item: Listed) -> int:
        return 2 if item.sinks else item.review is not None

    for item in items:
        other = kept.setdefault(said(item), item)
        if settled(item) > settled(other):
            kept[said(item)] = item
    return [item for item in items if kept[said(item)] is item]


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """A candidate with its id in addresses and its state."""

    id: str
    state: State
    item: Listed


def _entry(item: Listed) -> QueueEntry:
    return QueueEntry(id_of(item.name), state_of(item), item)


def _reaches(divergence: float, threshold: float) -> bool:
    """Return whether a divergence reaches the threshold, as both are shown: to 0.01 nats.

    All reach a threshold of 0, which is none.
    """
    return not threshold or max(divergence, round(divergence, 2)) >= threshold


class CandidateQueue:
    """The candidates of one model, each once, the largest divergence first.

    A page shows those of one state.

    Args:
        items: all candidates of the model.
        show: the state of those that the page shows.
        at: the id of the requested candidate; the page shows the first one if it is not listed.
        threshold: nats that one must have to wait for a decision; what is decided stays.

    Attributes:
        below: the number of candidates that would wait with a threshold of 0.
        largest: the largest divergence of those that wait, whatever the threshold; 0: none waits.
    """

    def __init__(
        self, items: Sequence[Listed], show: State, at: str, threshold: float = 0.0
    ) -> None:
        self._items = items
        self.threshold = threshold
        every = [_entry(item) for item in distinct(items)]
        self.entries = [
            it for it in every if it.state != "waiting" or _reaches(it.item.divergence, threshold)
        ]
        self.below = len(every) - len(self.entries)
        self.largest = max((it.item.divergence for it in every if it.state == "waiting"), default=0)
        self.counts = Counter(entry.state for entry in self.entries)
        self.show = show
        self.shown = [entry for entry in self.entries if entry.state == show]
        self._at = at
        ids = [entry.id for entry in self.shown]
        self.position = ids.index(at) if at in ids else 0

    def showing(self, show: State) -> CandidateQueue:
        """Return the same candidates, with those of another state shown."""
        return CandidateQueue(self._items, show, self._at, self.threshold)

    @property
    def current(self) -> QueueEntry | None:
        """The candidate that is shown, or ``None``."""
        return self.neighbour(0)

    def neighbour(self, step: int) -> QueueEntry | None:
        """Return the candidate ``step`` places after the current one, or ``None``."""
        at = self.position + step
        return self.shown[at] if 0 <= at < len(self.shown) else None

    def find(self, id_: str) -> QueueEntry | None:
        """Return a candidate in any state, or ``None`` if it is not stored any more."""
        return next((_entry(item) for item in self._items if id_of(item.name) == id_), None)

    def next_waiting(self) -> QueueEntry | None:
        """Return the next candidate to decide on; after the last, the first."""
        ids = [entry.id for entry in self.entries]
        start = ids.index(self._at) + 1 if self._at in ids else 0
        later = [*self.entries[start:], *self.entries[:start]]
        waiting = (it for it in later if it.state == "waiting" and it.id != self._at)
        return next(waiting, None)

    @property
    def listed(self) -> range:
        """The positions, among the shown candidates, of those in the list."""
        first = max(0, self.position - NEIGHBOURS)
        return range(first, min(len(self.shown), first + 2 * NEIGHBOURS + 1))


def _in_words(search: RunRecord) -> list[str]:
    """Return what a search for candidates found, in sentences."""
    threshold, largest = search.threshold, search.max_divergence
    what = "its threshold"
    if threshold is not None:
        what = f"the threshold of {threshold:,.2f} nats (finetune.threshold)"
    when, seen = moment_text(search.started_at), count_of(search.considered, "response")
    found = f"{search.found:,} not trained on reached {what}"
    lines = [f"The last search, of {when}, looked at {seen}: {found}."]
    if largest is not None:
        lines.append(f"The largest divergence was {largest:,.2f} nats.")
    if threshold is not None and not search.found and search.considered:
        if largest is not None and largest >= threshold:
            lines.append("What reaches it is trained on already, or has no text.")
        else:
            lines.append("A lower threshold finds more: --set finetune.threshold=…")
    if search.error is not None:
        lines.append(f"It did not end well: {search.error}")
    return lines


def why_empty(queue: CandidateQueue, search: RunRecord | None, faded: int) -> list[str]:
    """Return sentences on why no candidate waits, or none of the state that is asked for.

    ``search`` is the last one for candidates; ``faded`` is the number of rejected candidates that
    lists leave out.
    """
    lines = []
    if queue.show == "waiting" and queue.below:
        largest = f"the largest has {queue.largest:,.2f} nats"
        subject = "1 candidate waits" if queue.below == 1 else f"{queue.below:,} candidates wait"
        lines.append(f"{subject} below the threshold of {queue.threshold:,.2f} nats: {largest}.")
    decided = {state: queue.counts[state] for state in STATES if state != "waiting"}
    if queue.show == "waiting" and any(decided.values()):
        said = ", ".join(f"{count:,} {state}" for state, count in decided.items() if count)
        lines.append(f"Decided on already: {said}.")
    if faded and queue.show in ("waiting", "rejected"):
        one = faded == 1
        lines.append(
            f"{faded:,} more {'was' if one else 'were'} rejected before the last "
            f"{MOST_REJECTED}: {'it is' if one else 'they are'} kept, and not listed."
        )
    if queue.show == "waiting":
        if search is None:
            lines.append("No search for candidates by this model is recorded.")
        else:
            lines += _in_words(search)
    return lines
