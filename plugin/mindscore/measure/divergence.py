"""Leave-one-out differences: totals into divergences, and pairs that hide each other."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import sub
from statistics import median

from mindhooks import MemoryScore, RangeScore, ResponseDivergence, ScorerError, WirePrompt

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


FEWEST = 5
"""Values of a response below which its spread says nothing."""

OF_MEDIAN = 3.0
"""Multiple of the median that an effect must exceed: about two standard deviations."""


def column_spread(signed: Iterable[float | None]) -> float:
    """Return the nats within which most memories change a response, 0.0 where too few are known.

    ``signed``: the memories' effects on one response; those of 0.0 were not measured.
    """
    sizes = [abs(it) for it in signed if it]
    return OF_MEDIAN * median(sizes) if len(sizes) >= FEWEST else 0.0


HOLD = 1.0
"""Nats by which a memory alone must make a response likelier to count as its support."""

OF_LARGEST = 0.5
"""Share of a response's largest hold that a memory's must reach: any does a little alone."""

OF_HOLD = 0.1
"""Share of its hold below which a memory's drop counts as nothing."""


@dataclass(frozen=True, slots=True)
class RedundantPair:
    """Two memories, and the responses that each supports alone but that need neither."""

    keys: tuple[str, str]
    node_ids: tuple[str, ...]


def redundant_pairs(scores: Iterable[MemoryScore | None]) -> list[RedundantPair]:
    """Return the pairs of memories that hide each other, those with the most responses first.

    Both support a response alone (hold), and it is as likely without either one (drop near zero).
    That each could do the other's work is then likely, not shown: they were not removed together.
    """
    known = [score for score in scores if score is not None and score.hold is not None]
    largest: dict[str, float] = defaultdict(float)
    for score in known:
        for held in score.hold or ():
            largest[held.node_id] = max(largest[held.node_id], held.signed)
    hidden: dict[str, list[str]] = defaultdict(list)
    for score in known:
        drops = {cell.node_id: cell for cell in score.divergences}
        for held in score.hold or ():
            drop = drops.get(held.node_id)
            enough = max(HOLD, OF_LARGEST * largest[held.node_id])
            if drop is not None and held.signed >= enough and _is_nothing(drop, held):
                hidden[held.node_id].append(score.key)
    together: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node_id, keys in hidden.items():
        for one, other in combinations(keys, 2):
            together[one, other].append(node_id)
    pairs = [RedundantPair(keys, tuple(node_ids)) for keys, node_ids in together.items()]
    return sorted(pairs, key=lambda pair: -len(pair.node_ids))


def _is_nothing(drop: ResponseDivergence, hold: ResponseDivergence) -> bool:
    return abs(drop.signed) <= max(OF_HOLD * hold.signed, drop.noise or 0.0)
