"""Advice on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mindscore._util.text import count_of, moment_text, one_line, printable, shortened
from mindscore.display.tables import HARMED, HELPED, LONGEST_KEY, remark_lines
from mindscore.measure.archive_advice import ArchiveAdvice, JointEffect, Receipt, ResponsePlace
from mindscore.measure.duplicates import Basis
from mindscore.measure.summaries import Effect, MemoryEvidence
from mindscore.measure.verdicts import Advice, Verdict

WIDE = 120
"""Columns of a terminal from which on intervals have a column of their own."""

STYLES = {
    Verdict.HARMFUL: f"bold {HARMED}",
    Verdict.DROP: "bold",
    Verdict.MERGE: "bold",
    Verdict.KEEP: f"bold {HELPED}",
    Verdict.NOT_ENOUGH_EVIDENCE: "bold dim",
}
HEADINGS = {
    Verdict.HARMFUL: "harmful: look here",
    Verdict.DROP: "drop",
    Verdict.MERGE: "merge",
    Verdict.KEEP: "keep",
    Verdict.NOT_ENOUGH_EVIDENCE: "not enough evidence",
}
NAMED = 3
"""Responses and memories that a line names."""
TITLE = 40
UNCHANGED = "Nothing was changed."


def show_advice(console: Console, advice: ArchiveAdvice) -> None:
    """Print the verdicts, each with its memories and reasons, the receipt, and the remarks."""
    if advice.advice:
        console.print(Text(_headline(advice)))
    for verdict in dict.fromkeys(it.verdict for it in advice.advice):
        console.print()
        for part in _group(console, advice, verdict):
            console.print(part)
    if advice.advice:
        console.print()
        console.print(Text(MEANINGS, style="dim"))
        for line in _proposal(advice):
            console.print(line)
    for remark in remark_lines(advice.remarks):
        console.print(remark)
    if advice.advice:
        console.print(Text(UNCHANGED, style="dim"))


MEANINGS = (
    "nats: what a memory does in all, beyond what the typical one does; 0.7 doubles a response's "
    "probability. tok: tokens a turn; talks: conversations; resp: responses judged, of which it "
    "helped (+) and harmed (−) some beyond noise"
)


def _headline(advice: ArchiveAdvice) -> str:
    mode = "" if advice.mode == "full" else ", in windows after each memory"
    first, last = moment_text(advice.first_scored), moment_text(advice.last_scored)
    when = first if first == last else f"{first} to {last}"
    return (
        f"{count_of(len(advice.advice), 'memory', 'memories')} judged by {printable(advice.model)} "
        f"on {count_of(advice.responses, 'response')} of "
        f"{count_of(advice.conversations, 'conversation')}{mode}, scored {when}"
    )


def _group(console: Console, advice: ArchiveAdvice, verdict: Verdict) -> Iterator[RenderableType]:
    """Yield the heading of a verdict and a table of its memories."""
    its = advice.of(verdict)
    tokens = [it for it in map(advice.tokens_a_turn, its) if it is not None]
    cost = f", {sum(tokens):,.0f} tokens a turn" if tokens else ""
    heading = f"{HEADINGS[verdict]}: {count_of(len(its), 'memory', 'memories')}{cost}"
    yield Text(heading, style=STYLES[verdict])
    is_wide = console.width >= WIDE
    names = [name for name in FIGURES if is_wide or name not in WIDE_FIGURES]
    yield _line(Text("memory", style="bold"), [Text(it, style="bold") for it in names], names)
    for it in its:
        figures = _figures(advice, it)
        key = Text(shortened(it.key, LONGEST_KEY), style="bold")
        yield _line(key, [Text(figures[name]) for name in names], names)
        for line in _about(advice, it, is_wide=is_wide):
            yield Padding(line, (0, 0, 0, 2))


FIGURES = {
    "nats": 8,
    "interval": 17,
    "per 1,000 tok": 13,
    "tok": 5,
    "talks": 6,
    "resp": 7,
    "+": 6,
    "−": 6,
}
"""What is shown of each memory in columns, and how wide they are."""

WIDE_FIGURES = ("interval", "per 1,000 tok")
"""Those that a narrow terminal shows below the memory."""


def _line(key: Text, figures: Sequence[Text], names: Sequence[str]) -> Table:
    """Return a line of a group's table: lines between them may be as wide as the terminal."""
    table = Table.grid(padding=(0, 1, 0, 0), expand=True)
    table.add_column(overflow="fold", ratio=1)
    for name in names:
        table.add_column(justify="right", no_wrap=True, width=FIGURES[name])
    table.add_row(key, *figures)
    return table


def _figures(advice: ArchiveAdvice, it: Advice) -> dict[str, str]:
    evidence, tokens = it.evidence, advice.tokens_a_turn(it)
    each = evidence.nats_per_1000_tokens
    return {
        "nats": f"{evidence.nats:,.1f}",
        "interval": _interval(evidence),
        "per 1,000 tok": "?" if each is None else f"{each:,.2f}",
        "tok": "?" if tokens is None else f"{tokens:,.0f}",
        "talks": f"{evidence.conversations:,}",
        "resp": f"{evidence.responses:,}",
        "+": f"{evidence.helped:,}",
        "−": f"{evidence.harmed:,}",
    }


def _about(advice: ArchiveAdvice, it: Advice, *, is_wide: bool) -> Iterator[Text]:
    """Yield the reason for a memory's verdict, and more facts of it, a line each."""
    kept = advice.kept_for.get(it.key)
    if kept is not None:
        missed = f"keep it: removed with the others, it is missed by {_effect(kept)}"
        yield Text(missed, style=HELPED)
    yield Text(printable(it.reason))
    for fact in _facts(advice, it, is_wide=is_wide):
        yield Text(fact, style="dim")
    if text := advice.texts.get(it.key):
        yield Text(f"“{one_line(text, 2 * TITLE - 10)}”", style="dim italic")


def _facts(advice: ArchiveAdvice, it: Advice, *, is_wide: bool) -> Iterator[str]:
    evidence = it.evidence
    if not is_wide:
        each = evidence.nats_per_1000_tokens
        per = "" if each is None else f", {each:,.2f} per 1,000 tokens"
        yield f"interval {_interval(evidence)}{per}"
    if evidence.estimated:
        of = count_of(evidence.responses, "effect")
        yield f"{evidence.estimated:,} of {of} are estimates (≈), not measured"
    helped = []
    if evidence.last_helped is not None:
        helped.append(f"last helped {moment_text(evidence.last_helped)[:10]}")
    if evidence.largest is not None:
        helped.append(f"most {_where(advice, evidence.largest)}")
    if helped:
        yield ", ".join(helped)
    if evidence.worst and it.verdict in (Verdict.HARMFUL, Verdict.KEEP):
        named = "; ".join(_where(advice, each) for each in evidence.worst[:NAMED])
        yield f"harmed {named}"
    for basis, words in _BASES.items():
        keys = [shortened(each.key, LONGEST_KEY) for each in it.duplicates if each.basis is basis]
        if keys:
            more = f" and {len(keys) - NAMED} more" * (len(keys) > NAMED)
            yield f"{words} {', '.join(keys[:NAMED])}{more}"
    if it.older:
        texts = count_of(len(it.older), "earlier text")
        yield f"{texts} of it: not counted here"


_BASES = {
    Basis.CONFIRMED: "missed when removed together with",
    Basis.HOLD: "does the same alone as",
    Basis.TEXT: "reads like",
}


def _where(advice: ArchiveAdvice, effect: Effect) -> str:
    place = advice.places.get(effect.response)
    nats = f"{'≈ ' * effect.is_estimate}{effect.signed:,.1f}"
    return f"{nats} on {_place(place)}" if place else nats


def _place(place: ResponsePlace) -> str:
    return f"#{place.entry_idx} of {one_line(place.name, TITLE)}"


def _effect(effect: JointEffect) -> str:
    return f"{effect.signed:,.1f} nats on {_place(effect.place)}"


def _interval(evidence: MemoryEvidence) -> str:
    if evidence.nats_interval is None:
        return "not known"
    return f"{evidence.nats_interval.low:,.1f} to {evidence.nats_interval.high:,.1f}"


def _proposal(advice: ArchiveAdvice) -> Iterator[Text]:
    """Yield what would be saved, or the receipt where it was measured."""
    its = advice.removable
    if advice.receipt is not None and not advice.stale:
        for number, line in enumerate(receipt_lines(advice.receipt)):
            yield Text(line, style="" if number else "bold")
        return
    if its:
        tokens = [it for it in map(advice.tokens_a_turn, its) if it is not None]
        yield Text(
            f"{count_of(len(its), 'memory', 'memories')} could go, {sum(tokens):,.0f} tokens a "
            "turn; effects do not add up: advise --verify PATH measures them removed together"
        )
    if advice.receipt is not None:
        when = moment_text(advice.receipt.verified_at)
        yield Text(f"The receipt of {when} is of other drops: {advice.stale}", style="dim")


def receipt_lines(receipt: Receipt) -> list[str]:
    """Return what the receipt says, a line each, the result first."""
    first, last, kept = receipt.first, receipt.last, receipt.kept
    these = f"these {len(last.keys):,}" if len(last.keys) != 1 else f"{printable(last.keys[0])}"
    lines = []
    if not last.keys:
        lines.append(f"Dropping any of the {len(first.keys):,} is missed: keep all of them")
    else:
        cost, most = "costs nothing beyond noise", ""
        if last.missed:
            cost = f"costs {_lost(last.lost)} of help"
            most = f", most on {_place(last.worst[0].place)} ({last.worst[0].signed:,.1f})"
        line = (
            f"Dropping {these} saves {last.tokens_a_turn:,.0f} tokens a turn and {cost} over "
            f"{count_of(last.responses, 'response')}{most}"
        )
        keep = f"; keep {len(kept)} of the {len(first.keys)} proposed" if kept else ""
        lines.append(line + keep)
    if last.freed:
        lines.append(
            f"It rids {count_of(last.freed, 'response')} of {last.gained:,.1f} nats of harm, most "
            f"{_effect(last.best[0])}"
        )
    if kept:
        lines.append(
            f"Without all {len(first.keys):,}, {count_of(first.missed, 'response')} would lose "
            f"{_lost(first.lost)}; put back, measured:"
        )
        lines += [f"  keep {printable(key)}: {_effect(receipt.kept_for[key])}" for key in kept]
    within = last.responses - last.missed - last.freed
    if within:
        lines.append(
            f"{count_of(within, 'response')} changed within noise, by {last.rest:+,.1f} nats in "
            "all (positive: likelier with the memories)"
        )
    lines += [f"Not in it: {printable(it)}" for it in receipt.unmeasured]
    computed = receipt.computed_tokens
    spent = "" if computed is None else f", {computed:,} computed"
    lines.append(
        f"Measured in {count_of(receipt.conversations, 'conversation')}: "
        f"{count_of(receipt.calls, 'call')}, {count_of(receipt.prompt_tokens, 'token')} sent{spent}"
    )
    if receipt.verified_at:
        lines.append(f"Verified {moment_text(receipt.verified_at)}")
    return lines


def _lost(nats: float) -> str:
    return f"{nats:,.1f} nats"
