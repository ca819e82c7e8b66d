"""``mindscore score``, ``plan``, ``list`` and ``show``: one command over one transcript."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from mindhooks import MindCommand, Role
from mindscore._util.aio import share_one_arena
from mindscore._util.errors import UsageError
from mindscore._util.text import count_of, iso_utc, moment_ago, one_line, printable, shortened
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.cli.options import PlanOptions, ScoreOptions, ShowOptions
from mindscore.config.file import merge
from mindscore.conversation.conversation import Conversation, Transcript
from mindscore.display.documents import document, plan_document, with_remarks
from mindscore.display.screen import Screen, new_console, own_output, write_json
from mindscore.display.tables import remark_lines, show_plan, show_result
from mindscore.readers.conversations import Conversations, read_memories
from mindscore.report.page import HtmlReport
from mindscore.review.cells import one_page, stored_results
from mindscore.session.plan import make_plan
from mindscore.session.session import Result, Session
from mindscore.store import History, KnownConversation

NAME = 40
TITLE = 60


def run_list(file: Path, format_: str | None, memories: Path | None, json: bool) -> int:
    """Print the conversations of ``file``, and return the exit status.

    ``memories`` is a file that names memories printed in the messages.
    """
    conversations = Conversations(file, format_)
    texts = None if memories is None else read_memories(memories)
    listed = [
        _fields(number, conversation, transcript)
        for number, (conversation, transcript) in enumerate(
            conversations.transcripts(texts), start=1
        )
    ]
    if json:
        head = {"command": "list", "file": str(file), "format": conversations.format}
        write_json({**head, "conversations": listed})
    else:
        _show(conversations.format, listed)
    return DONE


def _fields(number: int, conversation: Conversation, transcript: Transcript) -> dict[str, Any]:
    return {
        "number": number,
        "name": conversation.name,
        "title": conversation.title or _first_words(transcript),
        "messages": len(transcript.messages),
        "responses": len(transcript.responses()),
        "memories": transcript.keys(),
        **with_remarks(transcript.remarks),
    }


def _first_words(transcript: Transcript) -> str:
    asked = (it.text for it in transcript.conversation if it.role == Role.USER)
    return one_line(next(asked, ""), TITLE)


def _show(format_: str, listed: list[dict[str, Any]]) -> None:
    table = Table(box=None)
    table.add_column("", justify="right")
    table.add_column("name", overflow="fold")
    table.add_column("title", overflow="fold")
    for column in ("messages", "responses", "memories"):
        table.add_column(column, justify="right")
    for it in listed:
        table.add_row(
            f"{it['number']}",
            shortened(it["name"], NAME),
            one_line(it["title"], TITLE),
            f"{it['messages']:,}",
            f"{it['responses']:,}",
            f"{len(it['memories']):,}",
        )
    console = new_console()
    console.print(table)
    console.print(Text(f"format: {format_}", style="dim"))


@dataclass(frozen=True, slots=True)
class Prepared:
    """The inputs of a command, read and checked; ``file`` is the configuration's."""

    session: Session
    tables: dict[str, Any]
    file: Path | None
    keys: tuple[str, ...]


def prepare(
    options: PlanOptions, screen: Screen, *, self_test: bool, tokens: bool = False
) -> Prepared:
    """Read the configuration and the conversation, and apply the options.

    ``self_test``: whether to test a server first; ``tokens``: whether to keep tokens' values.

    Raises:
        UsageError: options do not go together, or name a memory or a conversation that is not
            there.
        ConfigError: the configuration is wrong.
        TranscriptError: the transcript is.
    """
    options.check()
    configuration = options.load()
    transcript = options.read(options.transcript)
    keys = _selected(transcript, options.memory)
    given = {
        "only": options.memory or None,
        "hold": options.hold or None,
        "resume": options.resume or None,
        "max_tokens": options.max_tokens,
        "tokens": tokens or None,
    }
    own = {name: value for name, value in given.items() if value is not None}
    changes: dict[str, Any] = {"plugins": {"settings": {"memory-scoring": own}}} if own else {}
    if options.all_due:
        changes["memory"] = {"interval_s": 0}
    if not self_test:
        changes["server"] = {"self_test": False}
    tables = merge(configuration.tables, changes)
    session = Session(transcript, screen.activity)
    return Prepared(session, tables, configuration.file, keys)


def run_score(options: ScoreOptions) -> int:
    """Run the command, print its findings, and return the exit status."""
    share_one_arena()
    screen = Screen("loading the model …")
    prepared = prepare(
        options, screen, self_test=not options.no_self_test, tokens=options.html is not None
    )
    report = _report(options, prepared)
    with screen, own_output():
        result = run_until_interrupted(
            lambda: _run(options.command, prepared, report),
            lambda: so_far(prepared.session, options.command, prepared.keys),
        )
    if options.json:
        write_json(document(result))
    else:
        show_result(new_console(), result)
    if result.error is not None:
        screen.fail(result.error)
    if report is not None:
        report.write(result)
    return DONE if result.error is None else FAILED


def run_plan(options: PlanOptions) -> int:
    """Print the plan, and return the exit status."""
    share_one_arena()
    screen = Screen("loading the model …")
    prepared = prepare(options, screen, self_test=False)
    with screen, own_output():
        plan = run_until_interrupted(
            lambda: make_plan(prepared.session, prepared.tables, options.command), lambda: ""
        )
    remarks = prepared.session.transcript.remarks
    if options.json:
        write_json(plan_document(plan, remarks))
    else:
        show_plan(new_console(), plan, remarks)
    if plan.error is None:
        return DONE
    screen.complain(plan.error)
    return FAILED


NOTHING_KEPT = "Nothing is kept yet in this namespace."
UNNAMED = "(not known)"


def run_show(options: ShowOptions) -> int:
    """Print what the store has of a conversation, or its conversations; return the exit status."""
    configuration, name = options.load(), options.conversation
    settings, tables = configuration.settings, configuration.tables
    is_file = bool(name) and _exists(Path(name or ""))
    given = {"--format": options.format, "--memories": options.memories, "--select": options.select}
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
        report.check({**read, "file of memories": options.memories})
    with Screen():
        found = [asyncio.run(stored_results(settings, it, id_, transcript)) for it in models]
    found = [results for results in found if results]
    if report is not None:
        report.write(_one_page(found))
    if options.json:
        results = [document(it) for its in found for it in its]
        write_json({"command": "show", "conversation": id_, "results": results})
    elif not found:
        nothing = "Nothing is kept of these memories as they are written now." if kept else ""
        new_console().print(Text(nothing or NOTHING_KEPT))
    else:
        _show_stored(found)
    return DONE


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    # An id may be longer than any file's name.
    except OSError:
        return False


def _one_page(found: Sequence[Sequence[Result]]) -> Result:
    """Return what a report shows: all of one model and one conversation."""
    if not found:
        raise UsageError("--html: nothing is kept of these memories as they are written now")
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


def _report(options: ScoreOptions, prepared: Prepared) -> HtmlReport | None:
    if options.html is None:
        return None
    report = HtmlReport(options.html, prepared.tables)
    read = {"transcript": options.transcript, "file of memories": options.memories}
    report.check({**read, "configuration": prepared.file})
    return report


async def _run(command: str, prepared: Prepared, report: HtmlReport | None) -> Result:
    async with prepared.session.open(prepared.tables) as session:
        result = await session.attempt(command, prepared.keys)
        return await report.with_words(session, result) if report else result


def so_far(session: Session, command: str, keys: Sequence[str]) -> str:
    """Say what an interrupted command has found, and whether that is stored."""
    found = f"{len(session.scores)} of {len(keys)} memories were scored"
    if command == MindCommand.SCORE_FINETUNE:
        found = f"{count_of(len(session.candidates), 'candidate')} found"
    # What found nothing may not even have a registry.
    error = session.store_error() if session.scores or session.candidates else None
    kept = "that is kept" if error is None else error
    more = "; --full --resume goes on" if command == MindCommand.SCORE_FULL and not error else ""
    return f": {found}; {kept}{more}"


def _selected(transcript: Transcript, only: Sequence[str]) -> tuple[str, ...]:
    known = transcript.keys()
    for key in only:
        if key not in known:
            raise UsageError(
                f"--memory {key}: {transcript.file} holds no such memory; "
                f"it holds {', '.join(known) or 'none'}"
            )
    return tuple(key for key in known if not only or key in only)
