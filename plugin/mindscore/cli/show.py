"""``mindscore show``: what the store has of conversations, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from mindhooks import MindCommand
from mindscore._util.errors import UsageError
from mindscore._util.text import iso_utc, moment_ago, printable, shortened
from mindscore.cli.interruption import DONE
from mindscore.cli.options import ShowOptions
from mindscore.conversation.conversation import Transcript
from mindscore.display.documents import document
from mindscore.display.screen import Screen, new_console, write_json
from mindscore.display.tables import remark_lines, show_result
from mindscore.report.page import HtmlReport
from mindscore.review.cells import one_page, stored_results
from mindscore.session.result import Result
from mindscore.store import History, KnownConversation

NAME = 40
"""Characters of a conversation's name in an error."""

NOTHING_KEPT = "Nothing is kept yet in this namespace."
UNNAMED = "(not known)"


def run_show(options: ShowOptions) -> int:
    """Print what the store has of a conversation, or its conversations; return the exit status."""
    configuration, name = options.load(), options.conversation
    settings, tables = configuration.settings, configuration.tables
    is_file = bool(name) and _exists(Path(name or ""))
    given = {
        "--format": options.format,
        "--memories": options.memories or None,
        "--select": options.select,
    }
    for option, value in given.items():
        if value is not None and not is_file:
            raise UsageError(f"{option} goes with a TRANSCRIPT")
    if name is None and options.html is not None:
        raise UsageError("--html goes with a TRANSCRIPT or a CONVERSATION-ID")
    with Screen():
        kept = asyncio.run(History(settings.store).conversations())
    if options.model is not None:
        kept = [it for it in kept if it.model == options.model]
        if not kept:
            raise UsageError(
                f"nothing is kept by model {options.model!r}: mindscore show lists what is kept"
            )
    if name is None:
        _show_kept(kept, json=options.json)
        return DONE
    transcript = options.read(Path(name)) if is_file else None
    id_ = transcript.id if transcript else name
    models = [it.model for it in kept if it.id == id_]
    if not models and (kept or not is_file or options.html):
        by = f" by model {options.model!r}" if options.model else ""
        if is_file:
            raise UsageError(
                f"nothing is kept of {name}{by}: mindscore score {name} measures it; "
                "mindscore show lists what is kept"
            )
        raise UsageError(
            f"{shortened(name, NAME)!r} is no file, and nothing is kept of a conversation of that "
            f"id{by}: mindscore show lists those that are kept"
        )
    report = None
    if options.html is not None:
        report = HtmlReport(options.html, tables)
        read = {"transcript": Path(name) if is_file else None, "configuration": configuration.file}
        report.check(read)
        for file in options.memories:
            report.check({"file of memories": file})
    outdated = _outdated(name, id_, transcript)
    with Screen():
        found = [asyncio.run(stored_results(settings, it, id_, transcript)) for it in models]
    found = [results for results in found if results]
    if report is not None:
        if not found:
            raise UsageError(f"--html: {outdated}")
        report.write(_one_page(found))
    if options.json:
        results = [document(it) for its in found for it in its]
        write_json({"command": "show", "conversation": id_, "results": results})
    elif not found:
        said = f"{outdated}." if models else NOTHING_KEPT
        new_console().print(Text(said))
    else:
        _show_stored(found)
    return DONE


def _outdated(name: str, id_: str, transcript: Transcript | None) -> str:
    """Return why nothing is shown of a conversation of which something is kept."""
    shows = f"mindscore show {printable(id_)} shows what is kept of it"
    if transcript is not None and not transcript.keys():
        return (
            f"{name}: nothing is kept of it without memories: name them by --memories FILE, as for "
            f"mindscore score; {shows}"
        )
    return (
        f"{name}: nothing is kept of its responses and memories as they are written now: "
        f"mindscore score {name} measures them; {shows}"
    )


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    # An id may be longer than any file's name.
    except OSError:
        return False


def _one_page(found: Sequence[Sequence[Result]]) -> Result:
    """Return what a report shows: all of one model and one conversation."""
    if len(found) > 1:
        models = ", ".join(results[0].model for results in found)
        raise UsageError(f"--html: choose one of {models} with --model: a report is of one model")
    if sum(it.command == MindCommand.SCORE_FULL for it in found[0]) > 1:
        raise UsageError("--html: several conversations are kept without an id: a report is of one")
    return one_page(found[0])


def _show_stored(found: Sequence[Sequence[Result]]) -> None:
    console = new_console()
    for remark in remark_lines(found[0][0].remarks):
        console.print(remark)
    for results in found:
        for it in results:
            oldest, newest = (moment_ago(time) for time in it.measured or (0.0, 0.0))
            when = newest if oldest == newest else f"{oldest}, to {newest}"
            console.print(Text(f"\n{it.command} by {printable(it.model)}, {when}", style="bold"))
            show_result(console, replace(it, remarks=()))
            for reviewed in it.reviewed:
                verdict = printable(reviewed.verdict)
                console.print(Text(f"#{reviewed.candidate.entry_idx} {verdict}"))


def _show_kept(kept: Sequence[KnownConversation], *, json: bool) -> None:
    if json:
        names = ("id", "model", "scores", "cells", "candidates")
        listed = [
            {**{name: getattr(it, name) for name in names}, "last": iso_utc(it.last)} for it in kept
        ]
        write_json({"command": "show", "conversations": listed})
        return
    console = new_console()
    if not kept:
        console.print(Text(NOTHING_KEPT))
        return
    table = Table(box=None)
    table.add_column("conversation", overflow="fold")
    table.add_column("model", overflow="fold")
    for column in ("scores", "cells", "candidates"):
        table.add_column(column, justify="right")
    table.add_column("last")
    for it in kept:
        counts = (f"{number:,}" for number in (it.scores, it.cells, it.candidates))
        table.add_row(
            printable(it.id) or UNNAMED, printable(it.model), *counts, moment_ago(it.last)
        )
    console.print(table)
