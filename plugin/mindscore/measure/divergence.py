"""Leave-one-out differences: totals into divergences, and what of them is within noise."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import sub
from statistics import median
from typing import Protocol

from mindhooks import (
    Generated,
    RangeScore,
    ResponseDivergence,
    ScorerError,
    WirePrompt,
)
from mindscore.config.settings import TOKEN_ID_LIMIT

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
    asked = [len(p.ranges) for p in prompts]
    try:
        got = [len(answer) for answer in answers]
    except TypeError:
        raise ScorerError(
            f"{name}: expected a ScoreResult, or a list of scores by prompt, got a "
            f"{type(answers).__name__}: its answers cannot be used"
        ) from None
    if asked != got:
        raise ScorerError(
            f"{name}: asked for {asked} scores by prompt, got {got}: its answers cannot be used"
        )
    for prompt, answer in zip(prompts, answers, strict=True):
        for node_id, score in zip(prompt.node_ids, answer, strict=True):
            if wrong := implausible(score.total):
                raise ScorerError(f"{name}: total log-probability of response {node_id}: {wrong}")


def check_generated(name: str, generated: Generated) -> Generated:
    """Require a text and, where there are ids, those of its tokens; return both.

    ``name`` is the scorer's, for the error.

    Raises:
        ScorerError: the answer is of another kind, or holds what is no token id.
    """
    if not isinstance(generated, Generated) or not isinstance(generated.text, str):
        raise ScorerError(
            f"{name}: generate: expected a Generated with a text, got a {type(generated).__name__}"
        )
    ids = generated.token_ids
    if ids is None:
        return generated
    if not isinstance(ids, Sequence) or isinstance(ids, str | bytes):
        raise ScorerError(
            f"{name}: generate: token_ids: expected a tuple or None, got a {type(ids).__name__}"
        )
    for index, id_ in enumerate(ids):
        is_int = isinstance(id_, int) and not isinstance(id_, bool)
        if not is_int or not 0 <= id_ < TOKEN_ID_LIMIT:
            raise ScorerError(
                f"{name}: generate: token_ids[{index}]: {str(id_)[:40]} is no token id: expected "
                f"an int from 0 to {TOKEN_ID_LIMIT - 1}"
            )
    if generated.text and not ids:
        raise ScorerError(
            f"{name}: generate: token_ids is empty, and the text is not: return all ids, or None"
        )
    return Generated(tuple(ids), generated.text)


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


UNMEASURED_NOISE = 1.0
"""Nats that are assumed to be noise where neither noise nor spread is known."""


def noise_limit(noise: float | None, spread: float) -> float:
    """Return the nats within which an effect on a response cannot be told from chance.

    ``noise`` is the response's, ``spread`` its ``column_spread``.
    """
    if is_assumed(noise, spread):
        return UNMEASURED_NOISE
    return max(noise or 0.0, spread)


def is_assumed(noise: float | None, spread: float) -> bool:
    """Return whether the ``noise_limit`` is no measurement: that is said beside the number."""
    return noise is None and not spread


class SignedEffect(Protocol):
    """The effect of a memory on one response, measured now or kept in the store."""

    @property
    def node_id(self) -> str:
        """The response."""

    @property
    def signed(self) -> float:
        """Nats, positive where the memory helped."""


def column_spreads(rows: Iterable[Iterable[SignedEffect]]) -> dict[str, float]:
    """Return the ``column_spread`` of each response in the memories' rows, by node id."""
    columns: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for cell in row:
            columns[cell.node_id].append(cell.signed)
    return {id_: column_spread(column) for id_, column in columns.items()}


def is_indistinct(cell: ResponseDivergence, spreads: Mapping[str, float]) -> bool:
    """Return whether an effect is within its ``noise_limit``: no colour, and no help or harm."""
    return 0 < abs(cell.signed) <= noise_limit(cell.noise, spreads.get(cell.node_id, 0.0))
