"""What one memory did in all."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mindhooks import MemoryScore
from mindscore.cli.result import NOT_SCORED, Result
from mindscore.divergence import within_noise


@dataclass(frozen=True, slots=True)
class Standing:
    """A memory among the others, in nats; ``None`` where it was not scored.

    ``largest`` is its score, ``is_noise`` whether that varies as much when nothing is removed; if
    not, ``most_on`` is the response that it is of. The rest counts only what is clear of noise:
    ``highest`` and ``lowest`` are what it did to the responses that it helped and harmed most,
    ``total`` is the sum of its divergences, ``likelier`` and ``less_likely`` are on how many
    responses it had an effect.
    """

    key: str
    text: str
    status: str
    why: str
    largest: float | None
    is_noise: bool
    highest: float | None
    lowest: float | None
    total: float | None
    likelier: int
    less_likely: int
    most_on: int | None

    @property
    def effect(self) -> str:
        """``"likelier"``, ``"less"``, ``"mixed"``, ``"none"``, or ``""`` where not scored."""
        if self.largest is None:
            return ""
        kinds = {(True, True): "mixed", (True, False): "likelier", (False, True): "less"}
        return kinds.get((self.likelier > 0, self.less_likely > 0), "none")


def standings(result: Result, texts: dict[str, str], least: float) -> list[Standing]:
    """Every memory that was asked for, what helped most first and what was not scored last.

    What is at most ``least`` nats, or within noise, is no effect.
    """
    found = [
        _standing(result, key, texts.get(key, ""), result.scores.get(key), least)
        for key in result.keys
    ]
    return sorted(found, key=_rank, reverse=True)


def _rank(it: Standing) -> tuple[float, float]:
    if it.highest is None or it.largest is None:
        return (-math.inf, -math.inf)
    return (it.highest, it.largest)


def _standing(
    result: Result, key: str, text: str, score: MemoryScore | None, least: float
) -> Standing:
    outcome = result.outcome(key)
    why = outcome.error or NOT_SCORED.get(outcome.status, "")
    if score is None:
        nothing = (None, False, None, None, None, 0, 0, None)
        return Standing(key, text, outcome.status, why, *nothing)
    clear = [it for it in score.divergences if not within_noise(it)]
    signed = [it.signed for it in clear]
    largest = max(score.divergences, key=lambda it: it.divergence, default=None)
    is_noise = largest is not None and within_noise(largest)
    return Standing(
        key,
        text,
        outcome.status,
        why,
        largest=score.score,
        is_noise=is_noise,
        highest=max((it.divergence for it in clear), default=0.0),
        lowest=min(signed, default=0.0),
        total=sum(it.divergence for it in clear),
        likelier=sum(it > least for it in signed),
        less_likely=sum(it < -least for it in signed),
        most_on=largest.entry_idx
        if largest and not is_noise and largest.divergence > least
        else None,
    )
