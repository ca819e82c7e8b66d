"""Result: what one command found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mindhooks import FinetuneCandidate, FinetuneStats, MemoryScore, MemoryStats, Outcome
from mindscore.conversation.conversation import Transcript

if TYPE_CHECKING:
    from mindscore.session.words import Word

NOT_SCORED = {
    "not-due": "not due yet: --all scores them anyway",
    "past-cutoff": "too recent to judge (memory.token_cutoff)",
    "no-response": "no response after them",
    "left-out": "left out, too large for --max-tokens",
}
"""Why memories were not scored, by the status of their outcome, and what can be done about it."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found.

    Attributes:
        command: the command that was run.
        model: the name of the model that scored.
        transcript: the conversation.
        keys: the memories that were asked for.
        scores: the score of each memory, by key.
        candidates: the fine-tuning candidates, the largest divergence first.
        stats: the statistics of the flow that answered, where it has any.
        error: what failed, or ``None``.
        remarks: what the transcript's source does not record, or what was not understood.
        words: the words of responses, by node id, where they were asked for.
    """

    command: str
    model: str
    transcript: Transcript
    keys: tuple[str, ...]
    scores: dict[str, MemoryScore]
    candidates: tuple[FinetuneCandidate, ...]
    stats: MemoryStats | FinetuneStats | None
    error: str | None
    remarks: tuple[str, ...] = ()
    words: Mapping[str, tuple[Word, ...]] = field(default_factory=dict)

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """The outcome of each memory of a memory run, by key."""
        return self.stats.outcomes if isinstance(self.stats, MemoryStats) else {}

    def outcome(self, key: str) -> Outcome:
        """Return what became of a memory, also where the flow that answers does not say."""
        if key in self.outcomes:
            return self.outcomes[key]
        if key in self.scores:
            return Outcome("scored")
        return Outcome("failed", self.error) if self.error else Outcome("not-due")
