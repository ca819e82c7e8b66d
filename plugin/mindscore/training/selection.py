"""Select the stored candidates to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mindhooks import TrainingSample
from mindscore.config.settings import Settings
from mindscore.store import Reviewed


@dataclass(frozen=True, slots=True)
class Selection:
    """The samples to train on, and how many candidates are left out.

    ``waiting``: not reviewed yet; ``rejected``: rejected in review.
    """

    samples: tuple[TrainingSample, ...]
    waiting: int
    rejected: int


def select(queue: Sequence[Reviewed], settings: Settings, *, unreviewed: bool) -> Selection:
    """Select the accepted candidates of ``queue``; with ``unreviewed``, the undecided ones too."""
    decisions = [it.review.decision if it.review else None for it in queue]
    wanted = ("accepted", None) if unreviewed else ("accepted",)
    chosen = [it for it, decision in zip(queue, decisions, strict=True) if decision in wanted]
    waiting = [] if unreviewed else [it for it in queue if it.review is None and not it.sinks]
    train, namespace = settings.train, settings.store.namespace
    samples = (sample_of(it, train.context, namespace) for it in chosen)
    return Selection(tuple(samples), len(waiting), decisions.count("rejected"))


def sample_of(
    reviewed: Reviewed, context: Literal["bare", "full"], namespace: str
) -> TrainingSample:
    """Make the sample of a candidate, with the answer that was chosen in review."""
    found, review = reviewed.candidate, reviewed.review
    answer = review.answer if review else "response"
    other = found.alternate_ids if answer == "response" else found.continuation_ids
    return TrainingSample(
        context_ids=found.bare_context_ids if context == "bare" else found.context_ids,
        continuation_ids=reviewed.answer_ids,
        rejected_ids=None if other == reviewed.answer_ids else other,
        context=context,
        candidate=found,
        model=reviewed.model,
        namespace=namespace,
        decision="accepted" if review else None,
        answer=answer,
    )
