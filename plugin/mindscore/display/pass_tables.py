"""Tables and lines about a pass over many conversations."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from rich.table import Table

from mindscore._util.text import count_of, one_line, printable

MOST_FAILURES = 20
"""Conversations that failed, of which a summary has a line each."""

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short_number(number: float) -> str:
    """Return a number with three digits and a unit, such as ``1.25 M``."""
    for size, unit in _UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def duration_text(seconds: float) -> str:
    """Return a duration in one unit."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:,.1f} h"


def money_text(amount: float) -> str:
    """Return an amount of money, of whatever currency, to the cent."""
    return f"{amount:,.2f}" if amount >= 0.01 or not amount else "less than 0.01"


def progress_line(responses: int, tokens: int, seconds: float, seconds_left: float | None) -> str:
    """Return what the progress display says beside the number of conversations."""
    parts = [count_of(responses, "response"), f"{short_number(tokens)} tokens"]
    if tokens and seconds:
        parts.append(f"{short_number(tokens / seconds)} tokens/s")
    if seconds_left is not None:
        parts.append(f"{duration_text(seconds_left)} left")
    return f"scoring: {', '.join(parts)}"


def summary_table(rows: Mapping[str, tuple[int, str]], width: int) -> Table:
    """Return a table, of so many columns, of counts by what they are of, each with a note."""
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    counts = {name: f"{count:,}" for name, (count, _) in rows.items()}
    # A space stands at either side of each of the three.
    beside = max(map(len, counts)) + max(map(len, counts.values())) + 6
    for name, (_, note) in rows.items():
        table.add_row(name, counts[name], _between_commas(note, width - beside))
    return table


def _between_commas(note: str, width: int) -> str:
    """Break a note into lines after commas alone, so that a number stays with its unit."""
    # textwrap breaks at no such space, but rich does.
    bound = note.replace(" ", "\xa0").replace(",\xa0", ", ")
    lines = textwrap.wrap(bound, max(1, width), break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\xa0", " ")


def failure_lines(failures: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return a line for each conversation that failed: its id, its file and the error."""
    lines = [
        f"{one_line(id_, 60)} ({printable(source)}): {error}"
        for id_, source, error in failures[:MOST_FAILURES]
    ]
    if len(failures) > MOST_FAILURES:
        lines.append(f"and {count_of(len(failures) - MOST_FAILURES, 'conversation')} more")
    return lines
