"""Leave-one-out divergence: how much likelier a response is with a memory than without it.

``signed[r] = total_logprob_with[r] - total_logprob_without[r]``, in nats, summed over the tokens of
response r; the divergence is ``max(0, signed)``. With and without are matched by node id and scored
by the same path.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from operator import sub

from mindhooks import RangeScore, ResponseDivergence, ScorerError, WirePrompt

ROUNDING = 1e-3
"""Nats by which a log-probability may exceed 0 before it is no rounding error any more."""

Totals = Mapping[str, float]
"""Total log-probability by node id."""

Values = Mapping[str, Sequence[float]]
"""Each token's log-probability by node id, in the order of the response's body."""


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


def divergences(
    responses: Mapping[str, int],
    with_: Totals,
    without: Totals,
    affected: Collection[str],
    noise: Mapping[str, float],
    tokens: Mapping[str, tuple[float, ...]],
) -> tuple[ResponseDivergence, ...]:
    """One divergence per response (node id to conversation index), 0.0 where not affected.

    ``noise`` is that of each response's total, by node id; what is not affected has none.
    ``tokens`` is the difference by token, by node id, where that is known.
    """
    result = []
    for node_id, entry_idx in responses.items():
        if node_id in affected:
            signed, spread = with_[node_id] - without[node_id], noise.get(node_id)
        else:
            signed, spread = 0.0, 0.0 if noise else None
        by_token = tokens.get(node_id)
        result.append(
            ResponseDivergence(entry_idx, node_id, max(0.0, signed), signed, spread, by_token)
        )
    return tuple(result)


def token_differences(with_: Values, without: Values) -> dict[str, tuple[float, ...]]:
    """By token, the log-probability with, less without, of each response that both have."""
    return {
        node_id: tuple(map(sub, with_[node_id], values))
        for node_id, values in without.items()
        if node_id in with_
    }


def within_noise(response: ResponseDivergence) -> bool:
    """Whether the response's total varies as much when nothing is removed."""
    return response.noise is not None and 0 < abs(response.signed) <= response.noise
