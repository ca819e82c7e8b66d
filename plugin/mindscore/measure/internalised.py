"""Measure how much of its memories a model has internalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mindhooks import Context, Scorer
from mindscore.config.settings import ServerSettings
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache, Usage
from mindscore.measure.memories import Skip, skip_all, skip_none, whole
from mindscore.measure.retry import Retry


@dataclass(frozen=True, slots=True)
class Effect:
    """A response's total log-probability with all memories and with none, in nats."""

    node_id: str
    with_: float
    without: float

    @property
    def divergence(self) -> float:
        """Return the nats by which the memories make it likelier, at least 0."""
        return max(0.0, self.with_ - self.without)


async def memory_effects(context: Context, scorer: Scorer) -> list[Effect]:
    """Return the effect of all memories together on each response, from two score calls.

    Raises:
        ScorerError: the scorer failed.
    """
    with_ = await response_totals(context, scorer, skip_none)
    without = await response_totals(context, scorer, skip_all)
    return [Effect(node_id, total, without[node_id]) for node_id, total in with_.items()]


async def response_totals(
    context: Context, scorer: Scorer, skip: Skip = skip_none
) -> dict[str, float]:
    """Return each response's total log-probability, in nats, without what ``skip`` names.

    Raises:
        ScorerError: the scorer failed.
    """
    prompt = context.wire_prompt(whole(context), skip)
    cached = CachedScorer(scorer, Usage(), ScoreCache(), Retry(ServerSettings()))
    return dict(await cached.score_uncached(prompt))


def mean_divergence(effects: Sequence[Effect]) -> float:
    """Return the mean over the responses, in nats."""
    return sum(it.divergence for it in effects) / len(effects)


def relative_change(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return the relative change of log-probabilities, both directions counted as change:

    ``sum |after - before| / sum |before|`` over the responses of ``before``.
    """
    changes = sum(abs(after[node_id] - total) for node_id, total in before.items())
    return changes / sum(map(abs, before.values()))
