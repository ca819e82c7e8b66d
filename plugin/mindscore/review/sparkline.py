"""A memory's scores and weights over time, as a small picture and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mindscore.store import Point

WIDTH, HEIGHT, MARGIN = 120.0, 28.0, 3.0
MOST = 60
"""The latest points that are drawn: two pixels each."""


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line of weights, as SVG takes one, and a point for each score.

    They are evenly spaced, from 0 nats at the bottom; ``last`` is where the line ends.
    """

    weights: str
    scores: Sequence[tuple[float, float]]
    last: tuple[float, float]
    words: str


def sparkline(points: Sequence[Point]) -> Sparkline | None:
    """The picture of some points, the oldest first; ``None`` where there are none."""
    if not points:
        return None
    drawn = points[-MOST:]
    most = max(max(it.score, it.weight) for it in drawn) or 1.0
    weights = _places([it.weight for it in drawn], most)
    scores = _places([it.score for it in drawn], most)
    line = " ".join(f"{x:g},{y:g}" for x, y in weights)
    return Sparkline(line, scores, weights[-1], _words(points))


def _places(values: Sequence[float], most: float) -> list[tuple[float, float]]:
    # A single one stands at the right, where the latest always is.
    tall, step = HEIGHT - 2 * MARGIN, (WIDTH - 2 * MARGIN) / max(1, len(values) - 1)
    first = WIDTH - MARGIN - step * (len(values) - 1)
    return [
        (round(first + at * step, 1), round(HEIGHT - MARGIN - tall * max(0.0, value) / most, 1))
        for at, value in enumerate(values)
    ]


def _words(points: Sequence[Point]) -> str:
    first, last = points[0], points[-1]
    if len(points) == 1:
        return f"scored once: {last.score:.2f} nats"
    return (
        f"{len(points)} times scored: weight {first.weight:.2f} at first, {last.weight:.2f} now; "
        f"the last score {last.score:.2f} nats"
    )
