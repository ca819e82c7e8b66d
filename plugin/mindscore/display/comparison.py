"""Two models compared: on a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from mindscore._util.text import count_of, one_line, printable, shortened
from mindscore.measure.comparison import (
    ComparedEffect,
    ComparedResponse,
    Comparison,
    Difference,
    MemoryComparison,
)

KEY, NAME, WORD, SAID = 28, 12, 12, 300
SHOWN = 40
"""Responses that a terminal shows: of more, those that differ most."""

LESS, MORE = "#b85c00", "#0878c8"

WORDS = {
    "less on some": "less on {less}",
    "more on some": "more on {more}",
    "less and more on some": "less on {less}, more on {more}",
}


def comparison_fields(comparison: Comparison | None) -> dict[str, Any]:
    """Return the comparison as JSON, with empty lists where there is none."""
    if comparison is None:
        empty: dict[str, Any] = {"other": None, "unit": None, "responses": [], "memories": []}
        return {**empty, "mean": None, "need": None}
    return {
        "other": comparison.other,
        "unit": comparison.unit,
        "responses": [_response_fields(it) for it in comparison.responses],
        "memories": [_memory_fields(it) for it in comparison.memories],
        "mean": _difference_fields(comparison.mean),
        "need": _difference_fields(comparison.need),
    }


def _response_fields(it: ComparedResponse) -> dict[str, Any]:
    parts = it.parts_at
    return {
        "conversation": it.conversation,
        "entry_idx": it.entry_idx,
        "node_id": it.node_id,
        "with": it.with_,
        "without": it.without,
        "noise": it.limit,
        "noise_assumed": it.assumed,
        "parts_at": parts
        and {"token": parts.token, "text": parts.text, "logprobs": parts.logprobs},
        "other_text": it.other_text,
    }


def _memory_fields(it: MemoryComparison) -> dict[str, Any]:
    places = {
        name: [
            {"conversation": each.conversation, "entry_idx": each.entry_idx, "needs": each.effects}
            for each in found
        ]
        for name, found in (("less_on", it.less_on), ("more_on", it.more_on))
    }
    change = _difference_fields(it.change)
    head = {"key": it.key, "needs": it.needs, **(change or {})}
    return {**head, "verdict": it.verdict, "responses": it.responses, **places}


def _difference_fields(it: Difference | None) -> dict[str, Any] | None:
    if it is None:
        return None
    fields = {"difference": it.difference, "low": it.low, "high": it.high}
    return {**fields, "all_equal": True} if it.all_equal else fields


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print the responses and the memories under both models, and what comes of it."""
    for part in _parts(console, comparison):
        console.print(part)


def _parts(console: Console, comparison: Comparison) -> Iterator[RenderableType]:
    if not comparison.responses:
        yield Text("There is no response to compare.")
        return
    yield Text(f"Responses: log-probability with all memories, in {comparison.unit}", style="bold")
    yield _responses(comparison, console.width)
    hidden = len(comparison.responses) - SHOWN
    if hidden > 0:
        yield Text(f"and {count_of(hidden, 'response')} that differ less: see --json", "dim")
    for it in comparison.responses[:SHOWN]:
        if it.other_text is not None:
            yield Text.assemble(
                (f"{place_of(it, comparison)} {comparison.other} says: ", "dim"),
                one_line(it.other_text, SAID),
            )
    if comparison.memories:
        yield Text(
            f"\nMemories: what each does to a response behind it, in {comparison.unit}",
            style="bold",
        )
        yield _memories(comparison)
    yield ""
    for line in comparison_lines(comparison):
        yield Text(printable(line))


def _heads(comparison: Comparison) -> tuple[str, str]:
    return shortened(comparison.model, NAME), shortened(comparison.other, NAME)


def _responses(comparison: Comparison, width: int) -> Table:
    digits, shown = digits_of(comparison), comparison.responses
    if len(shown) > SHOWN:
        shown = tuple(sorted(shown, key=lambda it: -abs(it.difference))[:SHOWN])
    heads = [*_heads(comparison), "difference", "memories add"]
    # By different tokenizers, nowhere.
    heads += ["parts at"] * (comparison.unit == "nats")
    rows = []
    for it in shown:
        first, other = it.needs
        cells = [
            f"{it.with_[0]:.{digits}f}",
            f"{it.with_[1]:.{digits}f}",
            f"{it.difference:+.{digits}f}",
            f"{first:.{digits}f} → {other:.{digits}f}",
            "" if it.parts_at is None else one_line(it.parts_at.text, WORD),
        ]
        rows.append(cells[: len(heads)])
    room = _room(heads, rows, width)
    if room < len("response") and heads[-1] == "parts at":
        # On a narrow terminal the numbers come first: none may be cut.
        heads, rows = heads[:-1], [row[:-1] for row in rows]
        room = _room(heads, rows, width)
    places = max(cell_len(place_of(it, comparison)) for it in shown)
    room = max(room, places)
    table = Table(box=None)
    table.add_column("response", no_wrap=room > places, overflow="fold", min_width=places)
    for name, column in zip(heads, zip(*rows, strict=True), strict=True):
        table.add_column(
            name,
            justify="left" if name == "parts at" else "right",
            overflow="fold",
            min_width=_longest_word(column),
        )
    for it, row in zip(shown, rows, strict=True):
        place = place_of(it, comparison)
        name = one_line(f"{place} {it.text}", room) if room > places else place
        table.add_row(name, *row[:2], Text(row[2], style=_style(it)), *row[3:])
    return table


def digits_of(comparison: Comparison) -> int:
    """Return the digits after the point that values of the unit are shown with."""
    return 1 if comparison.unit == "nats" else 3


def _style(it: ComparedResponse) -> str:
    return "dim" if it.within_noise else MORE if it.difference > 0 else LESS


def place_of(it: ComparedResponse | ComparedEffect, comparison: Comparison) -> str:
    """Return the name of a response; of several conversations, with the number of its own."""
    if comparison.conversations < 2:
        return f"#{it.entry_idx}"
    return f"{comparison.numbers[it.conversation]}#{it.entry_idx}"


def _room(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """Return the columns that are left for the responses beside the others, at most 60."""
    # Each column but the last has two blanks behind it.
    taken = sum(2 + max(map(cell_len, column)) for column in zip(heads, *rows, strict=True))
    return min(60, width - taken - 2)


def _memories(comparison: Comparison) -> Table:
    table = Table(box=None)
    named = max(len("memory"), *(cell_len(it.key) for it in comparison.memories))
    table.add_column("memory", min_width=min(named, WORD), max_width=KEY, overflow="fold")
    digits = digits_of(comparison) + 1
    shown = sorted(comparison.memories, key=lambda it: it.change.difference)
    rows = [
        (
            *(f"{it_:.{digits}f}" for it_ in it.needs),
            f"{it.change.difference:+.{digits}f}",
            interval_text(it.change, digits),
        )
        for it in shown
    ]
    heads = (*_heads(comparison), "change", "95 % interval")
    for name, column in zip(heads, zip(*rows, strict=True), strict=True):
        table.add_column(name, justify="right", overflow="fold", min_width=_longest_word(column))
    table.add_column(f"{shortened(comparison.other, NAME)} needs it")
    for it, row in zip(shown, rows, strict=True):
        said = verdict_words(it, comparison)
        style = LESS if said.startswith("less") else MORE if said.startswith("more") else "dim"
        table.add_row(shortened(it.key, 4 * KEY), *row, Text(said, style=style))
    return table


def _longest_word(cells: Sequence[str]) -> int:
    """Return the width below which a number of a column would be cut."""
    return max(cell_len(word) for cell in cells for word in (cell.split() or [""]))


def interval_text(it: Difference, digits: int) -> str:
    """Return the interval of a difference, or why there is none."""
    if it.low is None or it.high is None:
        return "all equal" if it.all_equal else "not known"
    return f"{it.low:+.{digits}f} to {it.high:+.{digits}f}"


def verdict_words(it: MemoryComparison, comparison: Comparison) -> str:
    """Return whether the other model needs a memory less or more, and on which responses."""
    digits = digits_of(comparison)

    def named(effects: Sequence[ComparedEffect]) -> str:
        first = next(iter(effects), None)
        if first is None:
            return ""
        if len(effects) > 1:
            more = f" and {len(effects) - 3} more" * (len(effects) > 3)
            return ", ".join(place_of(each, comparison) for each in effects[:3]) + more
        one, other = first.effects
        return f"{place_of(first, comparison)} ({one:.{digits}f} → {other:.{digits}f})"

    return WORDS.get(it.verdict, it.verdict).format(less=named(it.less_on), more=named(it.more_on))


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Yield in words what a comparison has found over all."""
    mean, need = comparison.mean, comparison.need
    if mean is None or need is None:
        return
    total, beyond = len(comparison.responses), comparison.beyond_noise
    other, digits = comparison.other, digits_of(comparison) + 1
    if not beyond:
        yield (
            f"{other}: no response differs by more than noise; the largest difference is "
            f"{max(abs(it.difference) for it in comparison.responses):.{digits + 1}f} "
            f"{comparison.unit}"
        )
    else:
        differ = "differs" if len(beyond) == 1 else "differ"
        yield (
            f"{other}: {len(beyond):,} of {count_of(total, 'response')} {differ} by more than "
            f"noise, by up to {abs(beyond[0].difference):.{digits}f} {comparison.unit} "
            f"({place_of(beyond[0], comparison)})"
        )
    yield f"responses with all memories: {_mean_words(mean, comparison, 'likelier')}"
    yield f"what all memories add to one: {_mean_words(need, comparison, 'more')}"
    first = comparison.responses[0]
    if comparison.conversations > 1:
        yield (
            f"{place_of(first, comparison)} is response #{first.entry_idx} of conversation "
            f"{comparison.numbers[first.conversation]}, in the order in which they were read; "
            "--json has their ids"
        )
    if any(it.assumed for it in comparison.responses):
        yield "noise: that of a model which does not repeat exactly is not known; 1 nat is assumed"
    ends = [it.low for it in (mean, need) if not it.all_equal]
    if not ends:
        return
    if None in ends:
        few = "conversations" if comparison.conversations > 1 else "responses"
        yield f"intervals are not known: there are too few {few}"
    elif comparison.conversations == 1:
        yield "intervals are over the responses of this one conversation"
    else:
        yield f"intervals are over {comparison.conversations:,} conversations"


def _mean_words(it: Difference, comparison: Comparison, word: str) -> str:
    digits = digits_of(comparison) + 1
    clear = {0: "no clear difference", 1: word, -1: f"less {word}".replace("less more", "less")}
    known = f" ({interval_text(it, digits)})" if it.low is not None or it.all_equal else ""
    said = f"{it.difference:+.{digits}f} {comparison.unit} on average{known}"
    if it.low is None and not it.all_equal:
        return said
    return f"{said}: {clear[it.sign]}"
