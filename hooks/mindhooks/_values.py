"""The host as plugins see it, and what flows hand to it and to listeners.

Log-probabilities and divergences are in nats, ``seconds`` in seconds of wall time.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from mindhooks._context import Context

OutcomeStatus = Literal["scored", "not-due", "past-cutoff", "no-response", "left-out", "failed"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a flow: the same object for everything that it emits, and for its end.

    Attributes:
        id: 32 hexadecimal digits, different for every run.
        command: the command that the flow answers.
        model: the scorer's model. Where there is no scorer, because it could not be built or the
            flow uses none, ``server.model`` of the settings, or ``""``.
        settings: a copy of the registry's settings, the whole TOML, taken when the run began.
        started_at: seconds since the epoch, as of ``time.time()``.
    """

    id: str
    command: str
    model: str
    settings: Mapping[str, Any]
    started_at: float


@dataclass(frozen=True, slots=True)
class ResponseDivergence:
    """The effect of removing a memory on one response.

    ``signed`` is the response's total log-probability with the memory minus the one without;
    ``divergence`` is ``max(0, signed)``. ``entry_idx`` is the response's index in
    ``Context.conversation``, ``node_id`` its node's id. ``noise`` is by how much the response's
    total varied when the same prompt was scored again (largest less smallest); ``None``: not
    measured. ``tokens`` is ``signed`` by token of the response's body, in order; ``None``: not
    asked for, nothing was measured, or the scorer gives totals only.
    """

    entry_idx: int
    node_id: str
    divergence: float
    signed: float
    noise: float | None = None
    tokens: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class MemoryScore:
    """One memory's score: the largest of its ``divergences``.

    ``mode`` is ``"incremental"`` (a window after the memory) or ``"full"`` (a row of the matrix).
    ``hold``, where it was asked for, is what this memory did alone: with it and no other, against
    none. ``fingerprint`` is a hash of what a row was measured from, the prompts with the memory and
    without it: the same prompts need not be scored again.
    """

    key: str
    score: float
    mode: Literal["incremental", "full"]
    divergences: tuple[ResponseDivergence, ...]
    hold: tuple[ResponseDivergence, ...] | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class FinetuneCandidate:
    """A response that depends on memories the model has not internalised.

    ``context_ids`` is the prompt from the conversation's start up to the response, memories
    included; ``bare_context_ids`` the same without any memory; ``continuation_ids`` the response.
    ``alternate_text`` and ``alternate_ids`` are what the model says from the bare context, or
    ``None`` where nothing was generated. ``noise`` is the divergence's, as in
    ``ResponseDivergence``.
    """

    entry_idx: int
    node_id: str
    divergence: float
    response_text: str
    prior_context: str
    context_ids: tuple[int, ...]
    bare_context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]
    alternate_text: str | None
    alternate_ids: tuple[int, ...] | None
    timestamp_ns: int
    noise: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one memory in a run; ``error`` is set when ``status`` is ``"failed"``.

    ``"left-out"``: it did not fit in the tokens that the run may send.
    """

    status: OutcomeStatus
    error: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """A memory run at its end.

    ``calls`` counts prompts scored, without retries; ``prompt_tokens`` what was sent;
    ``computed_tokens`` what ran through the model (``None``: the server does not say).
    """

    outcomes: Mapping[str, Outcome]
    calls: int
    prompt_tokens: int
    computed_tokens: int | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FinetuneStats:
    """A finetune run at its end; ``above_threshold`` counts the candidates emitted."""

    responses_considered: int
    above_threshold: int
    threshold: float
    max_divergence: float
    calls: int
    prompt_tokens: int
    computed_tokens: int | None
    seconds: float
    error: str | None = None


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
