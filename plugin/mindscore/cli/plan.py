"""``mindscore plan``: what a command would cost, before it is paid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mindhooks import MindCommand
from mindscore._util.aio import share_one_arena
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.cli.score import Request, prepare
from mindscore.display.documents import with_remarks
from mindscore.display.screen import Screen, new_console, own_output, write_json
from mindscore.display.tables import remark_lines, skipped_lines
from mindscore.session.plan import Plan, make_plan


def run_plan(request: Request) -> int:
    """Print the plan, and return the exit status."""
    share_one_arena()
    screen = Screen()
    prepared = prepare(request, screen)
    with screen, own_output():
        plan = run_until_interrupted(
            lambda: make_plan(prepared.mind, prepared.tables, request.command), lambda: ""
        )
    remarks = prepared.mind.transcript.remarks
    if request.json:
        write_json(_document(plan, remarks))
    else:
        _show(new_console(), plan, remarks)
    if plan.error is None:
        return DONE
    screen.complain(plan.error)
    return FAILED


def _document(plan: Plan, remarks: Sequence[str]) -> dict[str, object]:
    return {
        "command": "plan",
        "flow": plan.command,
        "model": plan.model,
        **with_remarks(remarks),
        "memories": [
            {"key": key, "status": "to-score" if it.status == "scored" else it.status}
            for key, it in plan.outcomes.items()
        ],
        "calls": plan.calls,
        "prompt_tokens": plan.prompt_tokens,
        "computed_tokens": plan.computed_tokens,
        "seconds": plan.seconds,
        "error": plan.error,
    }


def _show(console: Console, plan: Plan, remarks: Sequence[str]) -> None:
    for line in remark_lines(remarks):
        console.print(line)
    computed, seconds = plan.computed_tokens, plan.seconds
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    if plan.command != MindCommand.SCORE_FINETUNE:
        found = Counter(it.status for it in plan.outcomes.values())
        table.add_row("memories to score", f"{found['scored']:,}")
    table.add_row("calls", f"{plan.calls:,}")
    table.add_row("tokens sent", f"{plan.prompt_tokens:,}")
    table.add_row(
        "tokens computed", "the server does not say" if computed is None else f"{computed:,}"
    )
    table.add_row("time, about", "not known" if seconds is None else _duration(seconds))
    console.print(Text(f"{plan.command} with {plan.model} would take", style="bold"))
    console.print(table)
    if plan.command == MindCommand.SCORE_FINETUNE:
        console.print(Text("and what generating alternates takes, where that is set", style="dim"))
    for line in skipped_lines(plan.outcomes):
        console.print(line)


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
