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

TokenLogprobs = Mapping[str, Sequence[float]]
"""Log-probabilities of a response's tokens, in the order of its body, by node id."""


def check_answers(
    name: str, prompts: Sequence[WirePrompt], answers: Sequence[Sequence[RangeScore]]
) -> None:
    """Require one plausible log-probability per range of each prompt.

    ``name`` is the scorer's, for the error.

    Raises:
        ScorerError: an answer does not fit; the text says what to do.
    """
    asked, got = [len(p.ranges) for p in prompts], [len(answer) for answer in answers]
    if asked != got:
        raise ScorerError(
            f"{name}: asked for {asked} scores by prompt, got {got}: its answers cannot be used"
        )
    for prompt, answer in zip(prompts, answers, strict=True):
        for node_id, score in zip(prompt.node_ids, answer, strict=True):
            if wrong := implausible(score.total):
                raise ScorerError(f"{name}: total log-probability of response {node_id}: {wrong}")


def implausible(logprob: float) -> str | None:
    """Return the fault of a log-probability, and its remedy; ``None`` for a plausible one."""
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
    """Return one divergence per response (node id to conversation index), 0.0 if not affected.

    ``noise`` is that of each response's total, in nats, by node id; a response that is not affected
    has none. ``tokens`` is the difference of each token, in nats, by node id, where it is known.
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


def token_differences(with_: TokenLogprobs, without: TokenLogprobs) -> dict[str, tuple[float, ...]]:
    """Return each token's log-probability with, less without, of the responses in both."""
    return {
        node_id: tuple(map(sub, with_[node_id], logprobs))
        for node_id, logprobs in without.items()
        if node_id in with_
    }


def within_noise(response: ResponseDivergence) -> bool:
    """Return whether the total varies as much when nothing is removed."""
    return response.noise is not None and 0 < abs(response.signed) <= response.noise
