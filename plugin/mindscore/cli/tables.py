"""Results on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mindhooks import FinetuneCandidate, MemoryScore, MindCommand, ResponseDivergence
from mindscore.cli.result import Result
from mindscore.text import one_line, printable, shortened

BAR = 20
CELL = 6
KEY = 28


def show_result(console: Console, result: Result) -> None:
    """Print what was found, then what it cost."""
    if result.command == MindCommand.SCORE_FINETUNE:
        parts = _finetune(result)
    elif result.command == MindCommand.SCORE_FULL:
        parts = _matrix(console, result)
    else:
        parts = _memories(console, result)
    for part in parts:
        console.print(part)
    if result.stats:
        console.print(Text(_cost(result), style="dim"))


def score_line(score: MemoryScore) -> Text:
    """One memory's score, as soon as it is known."""
    return Text.assemble((f"{score.score:8.2f}", "bold"), "  ", printable(score.key))


def _memories(console: Console, result: Result) -> Iterator[RenderableType]:
    scores = sorted(result.scores.values(), key=lambda it: -it.score)
    if scores:
        yield Text("Memories by score", style="bold")
        table = Table(box=None)
        longest = max(cell_len(printable(score.key)) for score in scores)
        table.add_column("memory", min_width=min(KEY, longest), max_width=KEY, overflow="fold")
        table.add_column("nats", justify="right", min_width=7)
        table.add_column("", min_width=BAR)
        table.add_column("most on", no_wrap=True)
        room = max(20, console.width - KEY - BAR - 16)
        for score in scores:
            most = max(score.divergences, key=lambda it: it.divergence, default=None)
            table.add_row(
                printable(score.key),
                f"{score.score:.2f}",
                _bar(score.score / (scores[0].score or 1)),
                _response(result, most, room) if most and score.score > 0 else "",
            )
        yield table
    yield from _skipped(result)


def _skipped(result: Result) -> Iterator[Text]:
    """The memories that were not scored, by why, and what can be done about it."""
    why = {
        "not-due": "not due yet: --all scores them anyway",
        "past-cutoff": "too recent to judge (memory.token_cutoff)",
        "no-response": "no response after them",
    }
    outcomes = result.memory_stats.outcomes if result.memory_stats else {}
    for status, explanation in why.items():
        keys = [key for key, outcome in outcomes.items() if outcome.status == status]
        if keys:
            yield Text(f"{len(keys)} {explanation}: {printable(', '.join(keys))}", style="dim")
    failed: dict[str, list[str]] = {}
    for key in result.keys:
        outcome = result.outcome(key)
        if outcome.status == "failed":
            failed.setdefault(outcome.error or "", []).append(key)
    for error, keys in failed.items():
        line = f"{len(keys)} failed: {', '.join(keys)}"
        yield Text(printable(line if error == result.error else f"{line}: {error}"), style="red")
    if not result.keys:
        yield Text("This conversation holds no memories.")


def _matrix(console: Console, result: Result) -> Iterator[RenderableType]:
    responses = result.transcript.responses()
    per_block = max(1, (console.width - KEY - 2) // (CELL + 1))
    yield Text("Signed divergence in nats: what each memory (row) did to each response (column)\n")
    for first in range(0, len(responses), per_block):
        block = responses[first : first + per_block]
        table = Table(box=None, padding=(0, 1, 0, 0))
        longest = max((cell_len(shortened(key, KEY)) for key in result.keys), default=0)
        table.add_column("memory", min_width=min(KEY, longest), max_width=KEY, no_wrap=True)
        for index, _ in block:
            table.add_column(f"#{index}", justify="right", min_width=CELL, no_wrap=True)
        for key in result.keys:
            row = result.scores.get(key)
            cells = {cell.node_id: cell.signed for cell in row.divergences} if row else {}
            table.add_row(shortened(key, KEY), *(_cell(cells.get(id_)) for _, id_ in block))
        yield table
        yield ""
    yield Text.assemble(
        ("positive: it helped", _shade(0.5)),
        "  ",
        ("negative: it harmed", _shade(-0.5)),
        ("  ·: below 0.01 or before it  ?: unknown", "dim"),
    )
    yield from _skipped(result)


def _cell(signed: float | None) -> Text:
    if signed is None:
        return Text("?", style="dim")
    if abs(signed) < 0.01:
        return Text("·", style="dim")
    return Text(f"{signed:.1f}" if abs(signed) >= 0.05 else "0.0", style=_shade(signed))


def _shade(signed: float) -> str:
    """Blue where a memory made a response likelier, orange where less: told apart by all eyes."""
    size = abs(signed)
    level = 0 if size < 1 else 1 if size < 5 else 2
    blue, orange = ("blue", "white on dodger_blue3", "bold white on blue3"), (
        "dark_orange3", "black on orange1", "bold black on dark_orange"
    )  # fmt: skip
    return (blue if signed > 0 else orange)[level]


def _finetune(result: Result) -> Iterator[RenderableType]:
    yield Text(f"Candidates for training: {len(result.candidates)}", style="bold")
    for candidate in result.candidates:
        yield Padding(_candidate(candidate), (0, 0, 1, 0))
    stats = result.finetune_stats
    if stats and not result.candidates and not stats.error:
        yield Text(
            f"No response of {stats.responses_considered} lost {stats.threshold:g} nats or more "
            f"without the memories (the largest: {stats.max_divergence:.2f})."
        )


def _candidate(candidate: FinetuneCandidate) -> Group:
    lines: list[RenderableType] = [
        Text(f"#{candidate.entry_idx}  {candidate.divergence:.2f} nats", style="bold blue"),
        Padding(Text(_keep_lines(candidate.prior_context), style="dim"), (0, 0, 0, 2)),
        Padding(Text(f"said     {_keep_lines(candidate.response_text)}"), (0, 0, 0, 2)),
    ]
    if candidate.alternate_text is not None:
        without = f"without  {one_line(candidate.alternate_text, 300)}"
        lines.append(Padding(Text(without, style="dark_orange3"), (0, 0, 0, 2)))
    return Group(*lines)


def _keep_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n") if line.strip())


def _response(result: Result, response: ResponseDivergence, width: int) -> str:
    conversation = result.transcript.conversation
    # Another flow's index may be anything.
    known = 0 <= response.entry_idx < len(conversation)
    text = conversation[response.entry_idx].text if known else response.node_id
    return one_line(f"#{response.entry_idx} {text}", width)


def _bar(share: float) -> Text:
    return Text("█" * round(share * BAR), style="blue")


def _cost(result: Result) -> str:
    stats = result.stats
    if stats is None:
        return ""
    computed = "" if stats.computed_tokens is None else f", {stats.computed_tokens:,} computed"
    return (
        f"{result.model}: {stats.calls} calls, {stats.prompt_tokens:,} tokens sent{computed}, "
        f"{stats.seconds:.1f} s"
    )
