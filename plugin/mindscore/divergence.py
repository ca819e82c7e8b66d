"""Leave-one-out divergence: how much likelier a response is with a memory than without it.

``signed[r] = total_logprob_with[r] - total_logprob_without[r]``, in nats, summed over the tokens of
response r; the divergence is ``max(0, signed)``. With and without are matched by node id and scored
by the same path.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mindhooks import RangeScore, ResponseDivergence, Scorer, ScorerError, WirePrompt

ROUNDING = 1e-3
"""Nats by which a log-probability may exceed 0 before it is no rounding error any more."""

Totals = Mapping[str, float]
"""Total log-probability by node id."""


@dataclass(slots=True)
class Usage:
    """What a run has spent so far.

    ``calls`` counts prompts, ``prompt_tokens`` what they hold, ``computed_tokens`` what ran through
    the model: ``None`` once an answer has not said so.
    """

    calls: int = 0
    prompt_tokens: int = 0
    computed_tokens: int | None = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Wall time since the run began."""
        return time.monotonic() - self.started


class Meter:
    """A scorer whose use is counted in ``usage`` and whose answers are checked."""

    def __init__(self, scorer: Scorer, usage: Usage) -> None:
        self.scorer = scorer
        self.usage = usage

    async def totals(self, prompts: Sequence[WirePrompt]) -> list[Totals]:
        """Each prompt's totals by node id; one without ranges is not sent.

        Raises:
            ScorerError: the scorer failed, or its answer does not fit what was asked.
        """
        asked = [prompt for prompt in prompts if prompt.ranges]
        if not asked:
            return [{} for _ in prompts]
        usage = self.usage
        usage.calls += len(asked)
        usage.prompt_tokens += sum(len(prompt.tokens) for prompt in asked)
        computed: int | None = None
        try:
            answers = await self.scorer.score(asked)
            computed = getattr(answers, "computed_tokens", None)
        finally:
            # How far a call that failed got is not known.
            known = computed is not None and usage.computed_tokens is not None
            usage.computed_tokens = (
                (usage.computed_tokens or 0) + (computed or 0) if known else None
            )
        check_answers(getattr(self.scorer, "model", "the scorer"), asked, answers)
        remaining = iter(answers)
        return [_by_node(prompt, next(remaining)) if prompt.ranges else {} for prompt in prompts]


def _by_node(prompt: WirePrompt, answer: list[RangeScore]) -> Totals:
    return {id_: score.total for id_, score in zip(prompt.node_ids, answer, strict=True)}


def check_answers(
    who: str, prompts: Sequence[WirePrompt], answers: Sequence[Sequence[RangeScore]]
) -> None:
    """Refuse an answer that is not one plausible log-probability per range of each prompt.

    Raises:
        ScorerError: names the scorer, what is wrong, and what to do.
    """
    asked, got = [len(p.ranges) for p in prompts], [len(answer) for answer in answers]
    if asked != got:
        raise ScorerError(
            f"{who}: asked for {asked} scores by prompt, got {got}: the scorer is not to be trusted"
        )
    for prompt, answer in zip(prompts, answers, strict=True):
        for node_id, score in zip(prompt.node_ids, answer, strict=True):
            if wrong := implausible(score.total):
                raise ScorerError(f"{who}: total log-probability of response {node_id}: {wrong}")


def implausible(logprob: float) -> str | None:
    """What is wrong with a log-probability, and what to do about it; ``None`` for nothing."""
    if not math.isfinite(logprob):
        return f"{logprob} is not finite: the model or its number format is broken"
    if logprob > ROUNDING:
        return f"{logprob} is above 0: have the server return log-probabilities, not logits"
    return None


def ask_only(prompt: WirePrompt, node_ids: Collection[str]) -> WirePrompt:
    """The same prompt with the ranges of ``node_ids`` alone."""
    kept = [
        (span, id_)
        for span, id_ in zip(prompt.ranges, prompt.node_ids, strict=True)
        if id_ in node_ids
    ]
    return replace(
        prompt, ranges=tuple(span for span, _ in kept), node_ids=tuple(id_ for _, id_ in kept)
    )


def divergences(
    responses: Mapping[str, int], with_: Totals, without: Totals, affected: Collection[str]
) -> tuple[ResponseDivergence, ...]:
    """One divergence per response (node id to conversation index), 0.0 where not affected."""
    result = []
    for node_id, entry_idx in responses.items():
        signed = with_[node_id] - without[node_id] if node_id in affected else 0.0
        result.append(ResponseDivergence(entry_idx, node_id, max(0.0, signed), signed))
    return tuple(result)
