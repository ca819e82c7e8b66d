"""Results on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mindhooks import (
    FinetuneCandidate,
    FinetuneStats,
    MemoryScore,
    MindCommand,
    Outcome,
    ResponseDivergence,
)
from mindscore._util.text import count_of, moment_ago, one_line, printable, shortened
from mindscore.display.comparison import show_comparison
from mindscore.measure.divergence import (
    UNMEASURED_NOISE,
    column_spreads,
    is_assumed,
    is_indistinct,
    noise_limit,
    within_noise,
)
from mindscore.measure.interactions import told_once
from mindscore.session.result import NO_MEMORIES, NOT_SCORED, Result

BAR = 20
CELL = 6
KEY = 28
LONGEST_KEY = 4 * KEY
HELPED, HARMED = "#0878c8", "#b85c00"
"""Blue and orange that are readable on black and on white; colour-blind people see them differ."""
MEANING = "nats: 0.7 doubles the probability, 2.3 is ten times likelier"
LONGEST_TEXT = 4000
REMARKS = 10
LONGEST_REMARK = 400
LISTED = 300
"""Characters after which a line lists no more memories."""


def show_result(console: Console, result: Result) -> None:
    """Print the remarks on the transcript, the findings, a summary of them, and the cost."""
    for line in remark_lines(result.all_remarks):
        console.print(line)
    if result.comparison is not None:
        show_comparison(console, result.comparison)
    if result.command == MindCommand.SCORE_FINETUNE:
        parts = _finetune(result)
    elif result.command == MindCommand.SCORE_FULL:
        parts = _matrix(console, result)
    else:
        parts = _memories(console, result)
    for part in parts:
        console.print(part)
    if result.scores or result.candidates:
        console.print(Text(_summary(result)))
    if result.stats:
        console.print(Text(_cost(result), style="dim"))


def remark_lines(remarks: Sequence[str]) -> Iterator[Text]:
    """Yield the remarks on a transcript, as many as are shown."""
    for remark in remarks[:REMARKS]:
        yield Text(shortened(remark, LONGEST_REMARK), style="dim")
    if len(remarks) > REMARKS:
        more = count_of(len(remarks) - REMARKS, "more remark")
        yield Text(f"and {more}: see --json", style="dim")


def score_line(score: MemoryScore) -> Text:
    """Return the line that shows one memory's score during a run."""
    return Text.assemble((f"{score.score:8.2f}", "bold"), "  ", shortened(score.key, LONGEST_KEY))


def _memories(console: Console, result: Result) -> Iterator[RenderableType]:
    yield from _ranking(console, result)
    yield from _known(result)
    yield from _skipped(result)


def _known(result: Result) -> Iterator[Table]:
    """Yield a table of what the store has from earlier runs, each score with its time."""
    table = Table(box=None)
    table.add_column("scored before", max_width=KEY, overflow="fold")
    table.add_column("nats", justify="right", no_wrap=True)
    table.add_column("measured")
    for it in sorted(result.known.values(), key=lambda it: -it.score):
        table.add_row(shortened(it.key, LONGEST_KEY), f"{it.score:.2f}", moment_ago(it.scored_at))
    if result.known:
        yield table


def _ranking(
    console: Console, result: Result, *, numbered: bool = False
) -> Iterator[RenderableType]:
    """Yield a table of the memories by score, a line each, and what its numbers mean."""
    spreads = result.spreads
    # Scores within noise, or that most memories have, are not ranked: they come last.
    ranked = sorted(result.scores.values(), key=lambda it: (not _is_clear(it, spreads), -it.score))
    if ranked:
        yield Text("Memories by score", style="bold")
        table = Table(box=None)
        places = len(str(len(ranked))) if numbered else 0
        if numbered:
            table.add_column("", justify="right", style="dim", no_wrap=True)
        longest = max(cell_len(shortened(score.key, LONGEST_KEY)) for score in ranked)
        table.add_column("memory", min_width=min(KEY, longest), max_width=KEY, overflow="fold")
        table.add_column("nats", justify="right", min_width=7, no_wrap=True)
        table.add_column("", min_width=BAR)
        table.add_column("most on", no_wrap=True)
        key_width = max(len("memory"), min(KEY, longest))
        nats = max(7, *(len(f"{score.score:.2f}") for score in ranked))
        # Each column but the last has a blank on either side.
        room = max(20, console.width - key_width - nats - BAR - 8 - (places + 2) * numbered)
        most = max(score.score for score in ranked)
        for place, score in enumerate(ranked, start=1):
            on = _largest(score)
            if on and not _is_clear(score, spreads):
                words, about = _indistinct(on, result)
                shown = Text(words, style="dim")
            else:
                shown = _bar(score.score / (most or 1))
                about = _response(result, on, room) if on and score.score > 0 else ""
            cells = (shortened(score.key, LONGEST_KEY), f"{score.score:.2f}", shown, about)
            table.add_row(*((f"{place}",) if numbered else ()), *cells)
        yield table
        yield Text(f"{MEANING}; the score is the largest over responses", style="dim")


def _indistinct(cell: ResponseDivergence, result: Result) -> tuple[str, str]:
    """Return why an effect cannot be told from chance, and by which limit."""
    spread = result.spreads[cell.node_id]
    place = result.placebo.spread.get(cell.node_id, 0.0) if result.placebo is not None else 0.0
    if is_assumed(cell.noise, spread):
        return "within noise", f"{_nats(UNMEASURED_NOISE)}, assumed"
    if within_noise(cell):
        return "within noise", f"noise {cell.noise:.2f} nats"
    if abs(cell.signed) <= place:
        return "like unrelated text", f"that has up to {place:.2f}"
    return "like most memories", f"most have up to {spread:.2f}"


def _largest(score: MemoryScore) -> ResponseDivergence | None:
    return max(score.divergences, key=lambda it: it.divergence, default=None)


def _summary(result: Result) -> str:
    """Return one line on what a command has found."""
    found, stats = [], result.stats
    if isinstance(stats, FinetuneStats):
        found.append(
            f"{len(result.candidates):,} of {count_of(stats.responses_considered, 'response')} "
            f"lost {_nats(stats.threshold)} or more without the memories"
        )
    elif result.candidates:
        found.append(count_of(len(result.candidates), "candidate"))
    if result.scores:
        total = max(len(result.keys), len(result.scores))
        of = count_of(total, "memory", "memories")
        spreads = result.spreads
        clear = sum(
            it.score >= result.min_divergence and _is_clear(it, spreads)
            for it in result.scores.values()
        )
        found.append(
            f"{len(result.scores):,} of {of} scored, "
            f"{clear:,} beyond noise and what most memories do"
        )
    return "; ".join(found)


def _is_clear(score: MemoryScore, spreads: Mapping[str, float]) -> bool:
    """Return whether a score is beyond noise, and beyond what most memories do there."""
    largest = _largest(score)
    return largest is None or not is_indistinct(largest, spreads)


def _nats(number: float) -> str:
    return f"{number:g} {'nat' if number == 1 else 'nats'}"


def _skipped(result: Result) -> Iterator[Text]:
    """Yield lines on the memories that were not scored, by reason."""
    yield from skipped_lines(result.outcomes)
    failed: dict[str, list[str]] = {}
    for key in result.keys:
        outcome = result.outcome(key)
        if outcome.status == "failed":
            failed.setdefault(outcome.error or "", []).append(key)
    for error, keys in failed.items():
        line = f"{len(keys)} failed: {_listed(keys)}"
        # What the run's own error says is printed once, below.
        told = bool(error) and error in (result.error or "")
        yield Text(printable(line if told or not error else f"{line}: {error}"), style="red")
    if not result.transcript.keys() and result.command in tuple(MindCommand):
        yield Text(NO_MEMORIES)


def skipped_lines(outcomes: Mapping[str, Outcome]) -> Iterator[Text]:
    """Yield a line for each reason why memories are not scored, with their keys."""
    for status, explanation in NOT_SCORED.items():
        keys = [key for key, outcome in outcomes.items() if outcome.status == status]
        if keys:
            yield Text(f"{len(keys)} {explanation}: {_listed(keys)}", style="dim")


def _listed(keys: Sequence[str]) -> str:
    """Return as many keys as fit on a line, and the number of the others."""
    line = ""
    for number, key in enumerate(keys):
        if len(line) > LISTED:
            return f"{line} and {len(keys) - number:,} more"
        line += ", " * bool(line) + shortened(key, LONGEST_KEY)
    return line


def _matrix(console: Console, result: Result) -> Iterator[RenderableType]:
    if not result.scores:
        yield from _skipped(result)
        return
    drops = {key: score.divergences for key, score in result.scores.items()}
    yield Text("Signed divergence in nats: what each memory (row) did to each response (column)\n")
    yield from _grid(console, result, drops, result.spreads)
    holds = {key: score.hold for key, score in result.scores.items() if score.hold is not None}
    if holds:
        yield Text("Hold: what each memory does alone, against none\n")
        yield from _grid(console, result, holds, column_spreads(holds.values()))
    yield Text.assemble(
        ("positive: it helped", _shade(0.5)),
        "  ",
        ("negative: it harmed", _shade(-0.5)),
        (f"  ·: below {result.min_divergence:g}, within noise or before it  ?: unknown", "dim"),
    )
    uncoloured = "no colour: no more than most memories do to that response (3 times the median)"
    if _assumes(drops) or _assumes(holds):
        uncoloured += f", or {_nats(UNMEASURED_NOISE)} where too few show that, which is assumed"
    if result.placebo is not None:
        uncoloured += f", or no more than unrelated text\n{result.placebo.remark}"
    yield Text(f"{uncoloured}\n", style="dim")
    yield from _interactions(result)
    yield from _ranking(console, result, numbered=True)
    for number, line in enumerate(result.screened):
        yield Text(printable(line), style="dim" if number else "bold")
    yield from _skipped(result)


def _assumes(rows: Mapping[str, Sequence[ResponseDivergence]]) -> bool:
    """Return whether the noise of any effect is assumed."""
    spreads = column_spreads(rows.values())
    cells = (cell for row in rows.values() for cell in row if cell.signed)
    return any(is_assumed(cell.noise, spreads[cell.node_id]) for cell in cells)


def _grid(
    console: Console,
    result: Result,
    rows: Mapping[str, Sequence[ResponseDivergence]],
    spreads: Mapping[str, float],
) -> Iterator[RenderableType]:
    """Yield a table for each block of responses that fits the console's width."""
    responses = result.transcript.responses()
    longest = max((cell_len(shortened(key, KEY)) for key in result.keys), default=0)
    key_width = max(len("memory"), min(KEY, longest))
    cell_width = max([CELL, *(len(f"{it.signed:.1f}") for row in rows.values() for it in row)])
    fitting = max(1, (console.width - key_width - 1) // (cell_width + 1))
    # As many in each block, so that none is left alone in the last.
    blocks = max(1, -(-len(responses) // fitting))
    per_block = max(1, -(-len(responses) // blocks))
    for first in range(0, len(responses), per_block):
        block = responses[first : first + per_block]
        table = Table(box=None, padding=(0, 1, 0, 0))
        table.add_column("memory", min_width=min(KEY, longest), max_width=KEY, no_wrap=True)
        for index, _ in block:
            table.add_column(f"#{index}", justify="right", min_width=CELL, no_wrap=True)
        # What was only estimated is not among what was measured.
        shown = [it for it in result.keys if it in rows] if result.estimates else result.keys
        for key in shown:
            cells = {cell.node_id: cell for cell in rows.get(key, ())}
            row = (_cell(cells.get(id_), result.min_divergence, spreads) for _, id_ in block)
            table.add_row(shortened(key, KEY), *row)
        yield table
        yield ""


def _interactions(result: Result) -> Iterator[Text]:
    """Yield a line for each group of memories that hide or need each other."""
    numbers = {id_: index for index, id_ in result.transcript.responses()}
    for it in told_once(result.redundant, result.interactions, numbers):
        on = ", ".join(f"#{number}" for number in it.on)
        *others, last = (shortened(key, LONGEST_KEY) for key in it.keys)
        yield Text(printable(f"{', '.join(others)} and {last} {it.relation} {on}"))


def _cell(cell: ResponseDivergence | None, smallest: float, spreads: Mapping[str, float]) -> Text:
    if cell is None:
        return Text("?", style="dim")
    signed = cell.signed
    if abs(signed) < smallest or within_noise(cell):
        return Text("·", style="dim")
    return Text(
        f"{signed:.1f}" if abs(signed) >= 0.05 else "0.0",
        style="" if is_indistinct(cell, spreads) else _shade(signed),
    )


def _shade(signed: float) -> str:
    """Return a style: blue for likelier, orange for less likely, which colour-blind people see."""
    size = abs(signed)
    colour = HELPED if signed > 0 else HARMED
    return colour if size < 1 else f"bold {colour}" if size < 5 else f"bold #ffffff on {colour}"


def _finetune(result: Result) -> Iterator[RenderableType]:
    yield Text(f"Candidates for training: {len(result.candidates)}", style="bold")
    if not (result.transcript.keys() or result.candidates):
        yield Text(NO_MEMORIES)
    for candidate in result.candidates:
        yield Padding(_candidate(candidate), (0, 0, 1, 0))
    stats = result.stats
    if isinstance(stats, FinetuneStats) and not result.candidates and not stats.error:
        yield Text(
            f"Of {count_of(stats.responses_considered, 'response')}, none lost "
            f"{_nats(stats.threshold)} or more without the memories (the largest: "
            f"{stats.max_divergence:.2f})."
        )
    if isinstance(stats, FinetuneStats) and stats.responses_considered:
        yield Text(
            f"{MEANING}; looked at the last {count_of(stats.responses_considered, 'response')}"
            " (finetune.window_fraction)",
            style="dim",
        )


def _candidate(candidate: FinetuneCandidate) -> Group:
    limit = noise_limit(candidate.noise, 0.0)
    which = "assumed, not measured" if is_assumed(candidate.noise, 0.0) else f"{limit:.2f} nats"
    noise = f"  within noise ({which})" if candidate.divergence <= limit else ""
    lines: list[RenderableType] = [
        Text(
            f"#{candidate.entry_idx}  {candidate.divergence:.2f} nats{noise}",
            style=f"bold {HELPED}",
        ),
        Padding(Text(_keep_lines(candidate.prior_context), style="dim"), (0, 0, 0, 2)),
        _hanging("said", Text(_keep_lines(candidate.response_text))),
    ]
    if candidate.alternate_text is not None:
        without = Text(one_line(candidate.alternate_text, 300), style=HARMED)
        lines.append(_hanging("without", without))
    return Group(*lines)


def _hanging(label: str, text: Text) -> Padding:
    """Return a label with a text whose further lines begin where its first one does."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=len("without"))
    grid.add_column(overflow="fold")
    grid.add_row(label, text)
    return Padding(grid, (0, 0, 0, 2))


def _keep_lines(text: str) -> str:
    kept = "\n".join(printable(line) for line in text.split("\n") if line.strip())
    return kept if len(kept) <= LONGEST_TEXT else f"{kept[:LONGEST_TEXT]}…"


def _response(result: Result, response: ResponseDivergence, width: int) -> str:
    conversation = result.transcript.conversation
    # Another flow's index may be anything.
    known = 0 <= response.entry_idx < len(conversation)
    text = conversation[response.entry_idx].text if known else response.node_id
    return one_line(f"#{response.entry_idx} {text}", width)


def _bar(share: float) -> Text:
    return Text("█" * round(share * BAR), style=HELPED)


def _cost(result: Result) -> str:
    stats = result.stats
    if stats is None:
        return ""
    computed = "" if stats.computed_tokens is None else f", {stats.computed_tokens:,} computed"
    # Where the scorer failed before its first answer, nobody knows which model it is.
    model = printable(result.model) if stats.calls or not result.error else "no model"
    return (
        f"{model}: {count_of(stats.calls, 'call')}, "
        f"{count_of(stats.prompt_tokens, 'token')} sent{computed}, "
        f"{stats.seconds:.1f} s"
    )
