"""The result of a command over a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mindhooks import FinetuneCandidate, FinetuneStats, MemoryScore, MemoryStats, Outcome
from mindscore._util.text import count_of, printable
from mindscore.conversation.conversation import Transcript
from mindscore.measure.comparison import Comparison
from mindscore.measure.divergence import column_spreads
from mindscore.measure.interactions import Interaction, RedundantGroup
from mindscore.measure.placebo import PlaceboControl
from mindscore.measure.screening.plain import estimates_in_words, in_words
from mindscore.measure.screening.receipt import Estimate, ScreenReceipt
from mindscore.store import KnownScore, Reviewed

if TYPE_CHECKING:
    from mindscore.session.words import Word

NOT_SCORED = {
    "not-due": "not due yet: --all scores them anyway",
    "past-cutoff": "too recent to judge (memory.token_cutoff): --full scores them anyway",
    "no-response": "no response after them",
    "left-out": "left out, too large for --max-tokens",
    "estimated": "estimated by the screen (≈), and not measured",
}
"""Why memories were not scored, by the status of their outcome, and what can be done about it."""

NO_MEMORIES = (
    "This conversation holds no memories. --memories FILE names those that are printed in its "
    'messages; in the native format, lines with "role": "memory" are memories.'
)


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """The findings of a command.

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
        min_divergence: effects below it, in nats, count as none.
        words: the words of responses, by node id, where they were asked for.
        redundant: the memories that hide each other, where the run looked for them.
        interactions: the memories whose effects do not add up, where the run looked for them.
        placebo: what unrelated texts in the memories' places do, where that was asked for.
        screen: of a screened matrix, what is exact, what is estimated, and what may be missed.
        estimates: the effects that it has estimated, and nothing measured: they are no scores.
        estimates_error: the nats that these may be wrong by; ``None``: not known.
        known: of memories that were not scored now, the last score that the store has, by key: by
            the same model, of the same text, in the same conversation.
        measured: of what is read from the store, the times of its oldest and its newest value, in
            seconds since the epoch; ``None``: it was measured now.
        reviewed: of what is read from the store, the candidates with their decisions.
        comparison: of ``compare``, this model beside another.
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
    min_divergence: float = 0.01
    words: Mapping[str, tuple[Word, ...]] = field(default_factory=dict)
    redundant: tuple[RedundantGroup, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    placebo: PlaceboControl | None = None
    screen: ScreenReceipt | None = None
    estimates: tuple[Estimate, ...] = ()
    estimates_error: float | None = None
    known: Mapping[str, KnownScore] = field(default_factory=dict)
    measured: tuple[float, float] | None = None
    reviewed: tuple[Reviewed, ...] = ()
    comparison: Comparison | None = None

    @property
    def all_remarks(self) -> tuple[str, ...]:
        """The remarks, those on the comparison included, each once."""
        found = list(self.remarks)
        if (compared := self.comparison) is not None:
            found += compared.remarks
            if compared.is_identical:
                found.append(
                    f"{compared.model} and {compared.other} give every response the same "
                    "log-probability, to the last digit: they may be one model, as where a server "
                    "does not heed the model's name"
                )
        return tuple(dict.fromkeys(found))

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """The outcome of each memory of a memory run, by key.

        Of a matrix from the store, those of the memories that were not measured.
        """
        if isinstance(self.stats, MemoryStats):
            return self.stats.outcomes
        unseen = self.screen.not_looked_at if self.screen is not None else ()
        guessed = {it.key: Outcome("estimated") for it in self.estimates}
        return {**dict.fromkeys(unseen, Outcome("left-out")), **guessed}

    def outcome(self, key: str) -> Outcome:
        """Return what became of a memory, also where the flow that answers does not say."""
        if key in self.outcomes:
            return self.outcomes[key]
        if key in self.scores:
            return Outcome("scored")
        return Outcome("failed", self.error) if self.error else Outcome("not-due")

    @property
    def spreads(self) -> dict[str, float]:
        """The nats within which an effect on a response says nothing, by node id.

        Most memories do as much to it, or an unrelated text does, where ``placebo`` has that.
        """
        found = column_spreads(it.divergences for it in self.scores.values())
        place = self.placebo.spread if self.placebo is not None else {}
        return {id_: max(spread, place.get(id_, 0.0)) for id_, spread in found.items()}

    @property
    def screened(self) -> list[str]:
        """Lines on what of the matrix is exact, and what a screen has estimated, if any is."""
        if self.screen is not None:
            return in_words(self.screen)
        return estimates_in_words(self.estimates, self.estimates_error)

    def to_pandas(self) -> Any:
        """Return a DataFrame: a row for each memory and response, candidate, or compared response.

        Of memories: ``key``, ``entry_idx``, ``node_id``, ``divergence``, ``signed``, ``noise``,
        ``hold``, in nats; of candidates: ``entry_idx``, ``node_id``, ``divergence``, ``noise``,
        ``response_text``, ``alternate_text``, ``prior_context``. NaN: not measured. Scores that are
        known from earlier runs are not among them. Of ``compare``: ``conversation``, ``entry_idx``,
        ``node_id``, ``with``, ``with_other``, ``without``, ``without_other``, ``difference``,
        ``noise``, in the comparison's unit, ``text``, ``other_text``; what memories do to them is
        in ``comparison.effects``.

        Raises:
            UsageError: pandas is not installed.
        """
        from mindscore.session.frames import frame

        return frame(self)

    def __repr__(self) -> str:
        """Return in one line how much it holds: its values would fill a prompt's screen."""
        counts = [
            (len(self.scores), "memory", "memories"),
            (len(self.known), "earlier score", None),
            (len(self.candidates), "candidate", None),
            (len(self.comparison.responses) if self.comparison else 0, "compared response", None),
        ]
        held = ", ".join(count_of(*it) for it in counts if it[0]) or "nothing"
        failed = f"; failed: {self.error}" if self.error else ""
        return printable(f"<{self.command} by {self.model}: {held}{failed}>")

    def _repr_html_(self) -> str:
        from mindscore.session.notebook import as_html

        return as_html(self)
