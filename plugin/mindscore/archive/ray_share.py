"""The servers and the tokens of a pass with Ray, which its workers share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mindscore.archive.archive_pass import down_remark
from mindscore.archive.budget import TokenBudget
from mindscore.archive.jobs import Taker


class PassShare(TokenBudget):
    """The part of a pass that all its workers share: its servers and its tokens.

    An actor of Ray's has it. ``places`` are the servers, with their conditions.
    """

    def __init__(self, places: Mapping[str, str], max_tokens: int | None) -> None:
        super().__init__(max_tokens)
        self._takers = {it: Taker(it, conditions) for it, conditions in places.items()}
        self._of_workers: dict[str, str] = {}
        self._remarks: list[str] = []

    def take(self, worker: str, tried: Sequence[str], prefers: str = "") -> str | None:
        """Return the server for a worker's conversation; ``None``: none is up but for ``tried``.

        A worker keeps its own, at first the one that fewest have, as long as that is up. Only a
        conversation that a server of the conditions ``prefers`` has begun goes to that one.
        """
        up = [it.place for it in self._takers.values() if it.is_up]
        own = self._of_workers.get(worker)
        others = [it for it in up if it not in tried]
        if prefers:
            its = [it for it in others if self._takers[it].conditions == prefers]
            others = its or others
        if own in others or not others:
            return own if others else None
        counts = Counter(self._of_workers.values())
        taken = min(others, key=lambda place: counts[place])
        if own not in up:
            self._of_workers[worker] = taken
        return taken

    def end(self, place: str, error: str | None) -> None:
        """Note how a conversation of a server has ended; with an ``error``: it gave up."""
        taker = self._takers[place]
        if taker.end(gave_up=error is not None) and taker.is_up:
            taker.is_up = False
            self._remarks.append(down_remark(place, error))

    def remarks(self) -> list[str]:
        """Return which servers went down."""
        return self._remarks


class RemoteShare(PassShare):
    """A ``PassShare`` that ``actor`` has, for workers anywhere."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def _ask(self, method: str, *given: Any) -> Any:
        import ray

        return ray.get(getattr(self._actor, method).remote(*given))

    def may_fit(self, tokens: int) -> bool:
        """Do as the actor does."""
        return bool(self._ask("may_fit", tokens))

    def reserve(self, most: int) -> int | None:
        """Do as the actor does."""
        granted: int | None = self._ask("reserve", most)
        return granted

    def settle(self, granted: int | None, spent: int) -> None:
        """Do as the actor does."""
        self._ask("settle", granted, spent)

    def take(self, worker: str, tried: Sequence[str], prefers: str = "") -> str | None:
        """Do as the actor does."""
        place: str | None = self._ask("take", worker, tried, prefers)
        return place

    def end(self, place: str, error: str | None) -> None:
        """Do as the actor does."""
        self._ask("end", place, error)

    def remarks(self) -> list[str]:
        """Do as the actor does."""
        return list(self._ask("remarks"))
