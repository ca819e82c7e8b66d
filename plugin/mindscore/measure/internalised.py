"""How much of its memories a model has internalised: what all of them together do to responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mindhooks import Context, Scorer
from mindscore.measure.divergence import check_answers
from mindscore.measure.memories import Skip, skip_all, skip_none, whole


@dataclass(frozen=True, slots=True)
class Effect:
    """A response's total log-probability with all memories and with none, in nats."""

    node_id: str
    with_: float
    without: float

    @property
    def divergence(self) -> float:
        """By how much likelier the memories make it: 0 where they make it no likelier."""
        return max(0.0, self.with_ - self.without)


async def memory_effects(context: Context, scorer: Scorer) -> list[Effect]:
    """What all memories together do to each response of the conversation; two scorings.

    Raises:
        ScorerError: the scorer failed.
    """
    with_ = await response_totals(context, scorer, skip_none)
    without = await response_totals(context, scorer, skip_all)
    return [Effect(node_id, total, without[node_id]) for node_id, total in with_.items()]


async def response_totals(
    context: Context, scorer: Scorer, skip: Skip = skip_none
) -> dict[str, float]:
    """Each response's total log-probability, in nats, without the memories that ``skip`` names.

    Raises:
        ScorerError: the scorer failed.
    """
    prompt = context.wire_prompt(whole(context), skip)
    answers = await scorer.score([prompt])
    check_answers(scorer.model, [prompt], answers)
    totals = (score.total for score in answers[0])
    return dict(zip(prompt.node_ids, totals, strict=True))


def mean_divergence(effects: Sequence[Effect]) -> float:
    """The mean over the responses, in nats."""
    return sum(it.divergence for it in effects) / len(effects)


def relative_change(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """By which fraction log-probabilities changed, either way: of their sum, so that none cancels.

    ``sum |after - before| / sum |before|`` over the responses of ``before``.
    """
    changes = sum(abs(after[node_id] - total) for node_id, total in before.items())
    return changes / sum(map(abs, before.values()))
