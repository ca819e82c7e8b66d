"""What one memory did in all."""

from __future__ import annotations

from dataclasses import dataclass

from mindhooks import MemoryScore
from mindscore.cli.result import NOT_SCORED, Result
from mindscore.divergence import within_noise


@dataclass(frozen=True, slots=True)
class Standing:
    """A memory among the others, in nats; ``None`` where it was not scored.

    ``largest`` is its score, ``lowest`` what it did to the response that it harmed most, ``total``
    the sum of its divergences; ``likelier`` and ``less_likely``: on how many responses it had an
    effect that is no noise.
    """

    key: str
    text: str
    status: str
    why: str
    largest: float | None
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
    """Every memory that was asked for, the largest score first and what was not scored last.

    What is at most ``least`` nats, or within noise, is no effect.
    """
    found = [
        _standing(result, key, texts.get(key, ""), result.scores.get(key), least)
        for key in result.keys
    ]
    return sorted(found, key=lambda it: -1e300 if it.largest is None else it.largest, reverse=True)


def _standing(
    result: Result, key: str, text: str, score: MemoryScore | None, least: float
) -> Standing:
    outcome = result.outcome(key)
    why = outcome.error or NOT_SCORED.get(outcome.status, "")
    if score is None:
        return Standing(key, text, outcome.status, why, None, None, None, 0, 0, None)
    clear = [it.signed for it in score.divergences if not within_noise(it)]
    largest = max(score.divergences, key=lambda it: it.divergence, default=None)
    return Standing(
        key,
        text,
        outcome.status,
        why,
        score.score,
        min(clear, default=0.0),
        sum(it.divergence for it in score.divergences),
        sum(signed > least for signed in clear),
        sum(signed < -least for signed in clear),
        largest.entry_idx if largest and largest.divergence > least else None,
    )
