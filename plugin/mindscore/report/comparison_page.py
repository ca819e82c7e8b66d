"""The page of a comparison: two models side by side, in one HTML file."""

from __future__ import annotations

from datetime import datetime

import mindscore
from mindscore.display.comparison import (
    comparison_lines,
    digits_of,
    interval_text,
    place_of,
    verdict_words,
)
from mindscore.measure.comparison import Comparison, MemoryComparison
from mindscore.pages.environment import asset, csp, environment
from mindscore.session.result import Result

MOST_RESPONSES = 500
"""Responses that a page shows: of more, those that differ most."""

MOST_OPEN = 20
"""Responses that it shows open; the rest can be unfolded."""

LONGEST_TEXT = 20_000
"""Characters of one response."""

CSS_CLASS = {"less": "less", "more": "more"}


class MemoryScale:
    """Places on a line of what memories do, from 0 to 100, with a place for 0."""

    def __init__(self, memories: tuple[MemoryComparison, ...]) -> None:
        values = [0.0, *(value for it in memories for value in it.needs)]
        self._low, self._size = min(values), (max(values) - min(values)) or 1.0

    def place(self, value: float) -> str:
        """Return the place of a value, as SVG takes it."""
        return f"{2 + 96 * (value - self._low) / self._size:.2f}"


def comparison_page(result: Result) -> str:
    """Return the page: it needs no other file, and asks for none.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    comparison = result.comparison or Comparison.of(result.model, "", "nats", (), ())
    styles = [
        asset("theme.css"),
        asset("report.css", "mindscore.report"),
        asset("comparison.css", "mindscore.report"),
    ]
    shown = comparison.responses
    if len(shown) > MOST_RESPONSES:
        shown = tuple(sorted(shown, key=lambda it: -abs(it.difference))[:MOST_RESPONSES])
    return (
        environment("mindscore.report")
        .get_template("comparison.html")
        .render(
            policy=csp([], styles),
            styles=styles,
            result=result,
            comparison=comparison,
            lines=list(comparison_lines(comparison)),
            shown=shown,
            most_open=MOST_OPEN,
            longest=LONGEST_TEXT,
            memories=sorted(comparison.memories, key=lambda it: it.change.difference),
            scale=MemoryScale(comparison.memories).place,
            digits=digits_of(comparison) + 1,
            place=lambda it: place_of(it, comparison),
            interval=interval_text,
            verdict=lambda it: verdict_words(it, comparison),
            tone=lambda it: CSS_CLASS.get(it.verdict.partition(" ")[0], "muted"),
            facts=_facts(result, comparison),
        )
    )


def _facts(result: Result, comparison: Comparison) -> list[tuple[str, str]]:
    found = [("Model", result.model)]
    if comparison.other:
        found += [
            ("Beside", comparison.other),
            ("Conversations", f"{comparison.conversations:,}"),
            ("Responses", f"{len(comparison.responses):,}"),
        ]
    if stats := result.stats:
        found += [
            ("Calls of both", f"{stats.calls:,}"),
            ("Tokens sent", f"{stats.prompt_tokens:,}"),
            ("Time", f"{stats.seconds:,.1f} s"),
        ]
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M UTC%z")
    return [*found, ("Date", date), ("mindscore", mindscore.__version__)]
