"""The host, as its plugins see it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from mindhooks._context import Context
from mindhooks._values import FinetuneCandidate, FinetuneStats, MemoryStats


@dataclass(slots=True)
class MindState:
    """The contents of a host's screen; flows and the recorder write it, the host reads it.

    ``response_scores`` holds the matrix by response: ``{node_id: {memory_key: divergence}}``.
    """

    scoring_in_flight: bool = False
    memory_scores: dict[str, float] = field(default_factory=dict)
    response_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    memory_last_run: MemoryStats | None = None
    finetune_candidates: list[FinetuneCandidate] = field(default_factory=list)
    finetune_last_run: FinetuneStats | None = None


class Activity(AbstractContextManager["Activity", None], Protocol):
    """A line of the host's screen about work in progress; gone when the ``with`` ends."""

    def update(self, message: str, done: int | None = None, total: int | None = None) -> None:
        """Replace the line; ``done`` of ``total`` steps are named where they are known."""


class Mind(Protocol):
    """A host: an agent with memories in its context."""

    state: MindState

    async def context(self) -> Context:
        """Return an immutable snapshot of the conversation; cheap to take."""

    def activity(self, message: str) -> Activity:
        """Show ``message`` for as long as the returned context manager is open."""

    def changed(self) -> None:
        """Wake the screen: called on the loop's thread after every write to ``state``."""
