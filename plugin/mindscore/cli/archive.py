"""``mindscore score`` and ``plan`` over many conversations."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from mindscore._util.errors import UsageError
from mindscore._util.text import count_of
from mindscore.archive.archive_pass import ArchivePass, PassState
from mindscore.archive.archive_plan import ArchivePlan, plan_archive
from mindscore.archive.sources import Sources
from mindscore.archive.survey import ArchiveReader, Found, Survey, parse_since
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.cli.options import Engine, MeasureOptions, PlanOptions, ScoreOptions
from mindscore.config.file import Configuration, merge
from mindscore.display.pass_tables import (
    duration_text,
    failure_lines,
    money_text,
    progress_line,
    short_number,
    summary_table,
)
from mindscore.display.screen import Screen, new_console, own_output, write_json
from mindscore.readers.source import Source

NO_CONVERSATION = "no conversation found"
NO_MEMORIES = (
    "no conversation holds memories: --memories FILE names those that are printed in the messages"
)

RAY_SO_FAR = ": what workers have done is kept, and the same command goes on"


class _Chosen:
    """The conversations that a command chose of an archive."""

    def __init__(self, options: PlanOptions, given: Source | None, screen: Screen) -> None:
        since = None if options.since is None else parse_since(options.since)
        sources = Sources(options.paths)
        self.reader = ArchiveReader(
            sources,
            options.format,
            options.memories,
            anywhere=options.memories_anywhere,
            only=options.memory,
            given=given,
        )
        with screen.activity("reading …") as activity:
            self.survey = Survey(
                self.reader,
                lambda files, found: activity.update(
                    f"reading: {count_of(files, 'file')}, {count_of(found, 'conversation')}"
                ),
            )
            self.found: list[Found] = self.survey.select(since, options.sample, options.seed)
        if options.memory and not self.found:
            raise UsageError(
                f"--memory {', '.join(options.memory)}: no conversation holds such a memory"
            )

    def remarks(self) -> list[str]:
        """Return why there is nothing to score, what was passed over, and what was not read."""
        lines = [*self._nothing(), *self.survey.remarks]
        if records := self.survey.records_left_out:
            lines.append(f"{count_of(records, 'record')} not valid and left out")
        return [*lines, *self.reader.sources.passed_over.remarks()]

    def _nothing(self) -> list[str]:
        """Return what is missing, where not one conversation has it."""
        found = list(self.survey.found)
        if any(it.memories for it in found) or self.survey.failed:
            return []
        return [NO_MEMORIES if found else NO_CONVERSATION]


def pass_tables(options: PlanOptions, configuration: Configuration) -> dict[str, Any]:
    """Return the configuration with the options of a pass."""
    own = {
        "only": options.memory or None,
        "hold": options.hold or None,
        "screen": options.screen or None,
    }
    given = {name: value for name, value in own.items() if value is not None}
    server = {} if not options.require_images else {"require_images": True}
    changes = {"plugins": {"settings": {"memory-scoring": given}}, "server": server}
    return merge(configuration.tables, changes)


def run_pass(options: ScoreOptions, configuration: Configuration, given: Source | None) -> int:
    """Score an archive, print a summary, and return the exit status.

    ``given`` is standard input, if it has been read.
    """
    options.check_pass()
    if options.html is not None:
        raise UsageError("--html goes with one conversation; choose it with --select")
    engine = _engine(options.engine)
    screen = Screen(once=True)
    tables = pass_tables(options, configuration)
    if options.no_self_test:
        tables = merge(tables, {"server": {"self_test": False}})
    output = sys.stdout
    with screen, own_output():
        chosen = _Chosen(options, given, screen)
        with screen.activity("loading the model …") as activity:
            this = engine(
                chosen.reader,
                tables,
                options.command,
                measure_again=options.all_due,
                max_tokens=options.max_tokens,
                heard=lambda it: write_json(it.document(), output) if options.json else None,
                progress=lambda state: activity.update(*_progress(state)),
            )
            run_until_interrupted(
                lambda: this.run(chosen.survey, chosen.found),
                lambda: _so_far(this.state) if options.engine is Engine.ASYNCIO else RAY_SO_FAR,
            )
    _summarise(this.state, chosen, screen, is_json=options.json)
    failed = [*this.state.failures, *chosen.survey.failed]
    return FAILED if failed or this.state.is_cut_short else DONE


def _engine(name: Engine) -> type[ArchivePass]:
    """Return the kind of pass; refuse Ray where it is not installed, before the archive is read."""
    if name is Engine.ASYNCIO:
        return ArchivePass
    from mindscore.archive.ray_engine import require_ray
    from mindscore.archive.ray_pass import RayPass

    require_ray()
    return RayPass


def _progress(state: PassState) -> tuple[str, int, int]:
    line = progress_line(state.responses, state.prompt_tokens, state.seconds, state.seconds_left)
    return line, state.done, state.total


def _so_far(state: PassState) -> str:
    return (
        f": {state.done:,} of {count_of(state.total, 'conversation')} done; that is kept, and the "
        "same command goes on"
    )


def _summarise(state: PassState, chosen: _Chosen, screen: Screen, *, is_json: bool) -> None:
    computed = state.computed_tokens
    note = f"{count_of(state.responses, 'response')}, {count_of(state.calls, 'call')}, "
    note += f"{short_number(state.prompt_tokens)} tokens sent"
    note += "" if computed is None else f", {short_number(computed)} computed"
    rows = {"scored": (state.scored, f"{note}, in {duration_text(state.seconds)}")}
    estimated = state.cells["estimate"]
    if estimated:
        count = state.cells.total()
        rows["effects"] = (count, f"{count - estimated:,} measured, {estimated:,} estimated (≈)")
    rows["unchanged"] = (state.unchanged, "scored by an earlier pass" * bool(state.unchanged))
    rows["failed"] = (len(state.failures), "named below" * bool(state.failures))
    left_out = chosen.survey.left_out + state.left_out
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
    rows["left out"] = (left_out.total(), reasons)
    rows["files not read"] = (len(chosen.survey.failed), "named below")
    rows = {name: it for name, it in rows.items() if it[0] or name == "scored"}
    console = screen.errors() if is_json else new_console()
    console.print(Text("conversations", style="bold"))
    console.print(summary_table(rows, console.width))
    for line in (*state.remarks, *chosen.remarks()):
        console.print(Text(line, style="dim"))
    for line in chosen.survey.failed:
        screen.complain(line)
    told = [(it.conversation, it.source, it.error) for it in state.failures]
    for line in failure_lines(told):
        screen.complain(line)


def run_archive_plan(
    options: MeasureOptions, configuration: Configuration, given: Source | None
) -> int:
    """Print what a pass over an archive would cost, and return the exit status."""
    options.check_pass()
    screen = Screen(once=True)
    with screen, own_output():
        chosen = _Chosen(options, given, screen)
        with screen.activity("planning …") as activity:

            def progress(done: int, total: int) -> None:
                activity.update(f"planning: {done:,}/{total:,} conversations", done, total)

            plan = run_until_interrupted(
                lambda: plan_archive(
                    chosen.reader,
                    chosen.survey,
                    chosen.found,
                    pass_tables(options, configuration),
                    options.command,
                    measure_again=options.all_due,
                    progress=progress,
                ),
                lambda: "",
            )
    price = options.price
    if options.json:
        write_json(plan.document(price))
    else:
        _show_plan(plan, chosen, price)
    for line in (*chosen.survey.failed, *failure_lines(plan.failures)):
        screen.complain(line)
    return FAILED if chosen.survey.failed or plan.failures else DONE


def _more(count: int, purpose: str = "") -> str:
    """Return what may come to a number, empty where nothing may."""
    return f"and up to {count:,} more{purpose}" * bool(count)


def _show_plan(plan: ArchivePlan, chosen: _Chosen, price: float | None) -> None:
    console = new_console()
    reasons = chosen.survey.left_out
    notes: Mapping[str, str] = {it: f"{count:,} {it}" for it, count in reasons.items()}
    rows = {
        "to score": (plan.conversations, count_of(plan.responses, "response")),
        "unchanged": (plan.unchanged, ""),
        "left out": (reasons.total(), ", ".join(notes.values())),
        "calls": (plan.calls, _more(plan.confirming_calls, ", to confirm groups of memories")),
        "tokens sent": (plan.prompt_tokens, _more(plan.confirming_tokens)),
    }
    if plan.computed_tokens is not None:
        rows["tokens computed"] = (
            plan.computed_tokens,
            "about: what no cache holds of them",
        )
    rows = {name: it for name, it in rows.items() if it[0] or name == "to score"}
    console.print(summary_table(rows, console.width))
    most = "at most, " * bool(plan.confirming_calls)
    if plan.seconds is None:
        console.print(f"time: no speed is known of {plan.place}: score one conversation first")
    else:
        console.print(
            f"time: {most}about {duration_text(plan.seconds)}, at the speed of earlier runs"
        )
    if price is not None:
        console.print(
            f"money: {most}{money_text(plan.money(price))}, at {price:g} per million tokens sent; "
            "repeated calls, and discounts for what a provider has cached, are not in it"
        )
    for line in (*plan.remarks, *chosen.remarks()):
        console.print(Text(line, style="dim"))
