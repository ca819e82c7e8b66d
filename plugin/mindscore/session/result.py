"""What one command found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mindhooks import (
    FinetuneCandidate,
    FinetuneStats,
    MemoryScore,
    MemoryStats,
    MindCommand,
    MindhooksError,
    Outcome,
    Registry,
    UnhandledCommand,
    UnknownScorer,
)
from mindscore._util.errors import ConfigError, format_error
from mindscore.config.settings import parse_settings
from mindscore.conversation.conversation import Transcript
from mindscore.session.session import Session, TranscriptMind

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
    """A command's findings: for a program as JSON, for a person as tables.

    ``error`` says what failed, ``None`` for nothing. ``keys`` are the memories asked for.
    ``remarks``: what the transcript's source does not record, or what was not understood.
    ``words``: those of the responses, by node id, where they were asked for.
    """

    command: str
    model: str
    transcript: Transcript
    keys: tuple[str, ...]
    scores: dict[str, MemoryScore]
    candidates: tuple[FinetuneCandidate, ...]
    memory_stats: MemoryStats | None
    finetune_stats: FinetuneStats | None
    error: str | None
    remarks: tuple[str, ...] = ()
    words: Mapping[str, tuple[Word, ...]] = field(default_factory=dict)

    @property
    def stats(self) -> MemoryStats | FinetuneStats | None:
        """The statistics of the flow that answers the command, where it wrote any."""
        if self.command == MindCommand.SCORE_FINETUNE:
            return self.finetune_stats
        return self.memory_stats

    def outcome(self, key: str) -> Outcome:
        """What became of a memory, also where the flow that answers does not say."""
        outcomes = self.memory_stats.outcomes if self.memory_stats else {}
        if key in outcomes:
            return outcomes[key]
        if key in self.scores:
            return Outcome("scored")
        return Outcome("failed", self.error) if self.error else Outcome("not-due")


def gather_result(
    mind: TranscriptMind, command: str, model: str, keys: tuple[str, ...], error: str | None
) -> Result:
    """What ``mind`` knows after ``command`` has ended; ``error``: what failed beside its flow."""
    state = mind.state
    ran = state.finetune_last_run if command == MindCommand.SCORE_FINETUNE else None
    memory = state.memory_last_run if command != MindCommand.SCORE_FINETUNE else None
    stats = ran or memory
    return Result(
        command=command,
        model=model,
        transcript=mind.transcript,
        keys=keys,
        scores=dict(mind.scores),
        candidates=tuple(mind.candidates),
        memory_stats=memory,
        finetune_stats=ran,
        error=(stats.error if stats else None) or error,
        remarks=mind.transcript.remarks,
    )


async def run_in(session: Session, command: str, model: str, keys: tuple[str, ...]) -> Result:
    """Run one command of a session; that nobody took it is a result too."""
    error = None
    try:
        await session.run(command)
    except UnhandledCommand as unhandled:
        error = f"{unhandled}: is its plugin disabled? See mindscore plugins."
    for name, failure in session.registry.task_errors().items():
        error = error or f"{name}: {format_error(failure)}"
    return gather_result(session.mind, command, model, keys, error)


async def model_name(registry: Registry) -> str:
    """The scorer's model; where it cannot be built, the one that the settings name.

    Raises:
        ConfigError: it cannot be built because of the configuration. Any other reason is met
            again, and reported, by the flow.
    """
    try:
        return (await registry.scorer()).model
    except ConfigError:
        raise
    except UnknownScorer as error:
        raise ConfigError(format_error(error)) from None
    except MindhooksError:
        return parse_settings(registry.settings).server.model
