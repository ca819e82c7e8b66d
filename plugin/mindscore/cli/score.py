"""``mindscore score``, ``plan``, ``list`` and ``show``: one command over one transcript."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from mindhooks import MindCommand, Role
from mindscore._util.aio import share_one_arena
from mindscore._util.errors import UsageError
from mindscore._util.text import count_of, one_line, printable, shortened
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.cli.options import Engine, MeasureOptions, PlanOptions, ScoreOptions, check_memories
from mindscore.config.file import Configuration, merge
from mindscore.conversation.conversation import Conversation, Transcript
from mindscore.conversation.places import Place, find_places
from mindscore.display.documents import document, plan_document, with_remarks
from mindscore.display.pass_tables import duration_text
from mindscore.display.places import show_places
from mindscore.display.screen import Screen, new_console, own_output, write_json
from mindscore.display.tables import remark_lines, show_result, skipped_lines
from mindscore.readers.conversations import Conversations
from mindscore.readers.memories import read_memories
from mindscore.readers.source import Source
from mindscore.report.page import HtmlReport
from mindscore.session.plan import SCREENED, Plan, make_plan
from mindscore.session.result import Result
from mindscore.session.session import Session

NAME = 40
TITLE = 60


def run_list(
    file: Path, format_: str | None, memories: Sequence[Path], anywhere: bool, json: bool
) -> int:
    """Print the conversations of ``file``, and return the exit status.

    ``memories`` are files that name memories printed in the messages; ``anywhere``: they are looked
    for in what the user typed, too.
    """
    check_memories(memories, anywhere)
    texts = read_memories(*memories, transcript=file) if memories else None
    conversations = Conversations(file, format_)
    listed = []
    found: list[dict[str, list[Place]]] = []
    transcripts = conversations.transcripts(texts, anywhere=anywhere)
    for number, (conversation, transcript) in enumerate(transcripts, start=1):
        fields = _fields(number, conversation, transcript)
        if texts is not None:
            places = find_places(transcript)
            found.append({key: places.get(key, []) for key in {**texts, **places}})
            fields["found"] = msgspec.to_builtins(found[-1])
        listed.append(fields)
    if json:
        head = {"command": "list", "file": str(file), "format": conversations.format}
        write_json({**head, "conversations": listed})
    else:
        _show(conversations.format, listed, conversations.left_out)
        if texts is not None:
            show_places(new_console(), found)
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


def _show(format_: str, listed: list[dict[str, Any]], left_out: int) -> None:
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
    if left_out:
        records = "1 record is" if left_out == 1 else f"{left_out:,} records are"
        console.print(f"{records} not valid and left out: --json says where and why")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The inputs of a command, read and checked; ``file`` is the configuration's."""

    session: Session
    tables: dict[str, Any]
    file: Path | None
    keys: tuple[str, ...]


def prepare(
    options: PlanOptions,
    configuration: Configuration,
    transcript: Transcript,
    screen: Screen,
    *,
    self_test: bool,
    tokens: bool = False,
) -> Prepared:
    """Apply the options to the configuration, for one conversation.

    ``self_test``: whether to test a server first; ``tokens``: whether to keep tokens' values.

    Raises:
        UsageError: options do not go together, or name a memory that is not there.
    """
    options.check_one()
    keys = _selected(transcript, options.memory)
    given = {
        "only": options.memory or None,
        "hold": options.hold or None,
        "placebo": options.placebo or None,
        "resume": options.resume or None,
        "max_tokens": options.max_tokens,
        "tokens": tokens or None,
        "screen": options.screen or None,
    }
    own = {name: value for name, value in given.items() if value is not None}
    changes: dict[str, Any] = {"plugins": {"settings": {"memory-scoring": own}}} if own else {}
    if options.all_due:
        changes["memory"] = {"interval_s": 0}
    server = {} if self_test else {"self_test": False}
    if options.require_images:
        server["require_images"] = True
    if server:
        changes["server"] = server
    tables = merge(configuration.tables, changes)
    session = Session(transcript, screen.activity)
    return Prepared(session, tables, configuration.file, keys)


def read_one(options: PlanOptions) -> tuple[Transcript | None, Source | None]:
    """Return the conversation where one is asked for, else its file, if that has been read.

    Raises:
        UsageError: there is no such conversation.
        TranscriptError: the file cannot be read.
    """
    file = options.paths[0]
    chooses = options.since is not None or options.sample is not None
    is_pattern = has_magic(str(file)) and not os.path.lexists(file)
    if len(options.paths) > 1 or chooses or file.is_dir() or is_pattern:
        return None, None
    if options.select is not None:
        return options.read(file), None
    check_memories(options.memories, options.memories_anywhere)
    memories = options.memories
    texts = read_memories(*memories, transcript=file) if memories else None
    source = Source(file)
    conversations = Conversations(source, options.format)
    first, *others = islice(conversations, 2)
    if others:
        return None, source
    anywhere = options.memories_anywhere
    return conversations.transcript(first, texts, anywhere=anywhere), None


def run_score(options: ScoreOptions) -> int:
    """Run the command, print its findings, and return the exit status."""
    share_one_arena()
    options.check()
    configuration = options.load()
    transcript, given = (None, None) if options.engine is Engine.RAY else read_one(options)
    if transcript is None:
        from mindscore.cli.archive import run_pass

        return run_pass(options, configuration, given)
    screen = Screen("loading the model …")
    prepared = prepare(
        options,
        configuration,
        transcript,
        screen,
        self_test=not options.no_self_test,
        tokens=options.html is not None,
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


def run_plan(options: MeasureOptions) -> int:
    """Print the plan, and return the exit status."""
    share_one_arena()
    options.check()
    configuration = options.load()
    transcript, given = read_one(options)
    if transcript is None:
        from mindscore.cli.archive import run_archive_plan

        return run_archive_plan(options, configuration, given)
    screen = Screen("loading the model …" if options.measure else "planning …")
    prepared = prepare(options, configuration, transcript, screen, self_test=False)
    session, tables = prepared.session, prepared.tables
    with screen, own_output():
        plan = run_until_interrupted(
            lambda: make_plan(session, tables, options.command, measure=options.measure),
            lambda: "",
        )
    remarks = session.remarks
    if options.json:
        write_json(plan_document(plan, remarks))
    else:
        _show_plan(plan, remarks)
    if plan.error is None:
        return DONE
    screen.complain(plan.error)
    return FAILED


def _show_plan(plan: Plan, remarks: Sequence[str]) -> None:
    """Print the remarks on the transcript and what a command would cost."""
    console = new_console()
    for line in remark_lines(remarks):
        console.print(line)
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    if plan.command != MindCommand.SCORE_FINETUNE:
        found = Counter(it.status for it in plan.outcomes.values())
        table.add_row("memories to score", f"{found['scored']:,}")
    computed, confirming = plan.computed_tokens, plan.confirming_calls
    more = f"and up to {confirming:,} more, to confirm groups of memories" * bool(confirming)
    table.add_row("calls", f"{plan.calls:,}", more)
    more = f"and up to {plan.confirming_tokens:,} more" * bool(confirming)
    table.add_row("tokens sent", f"{plan.prompt_tokens:,}", more)
    table.add_row(
        "tokens computed", "the server does not say" if computed is None else f"{computed:,}"
    )
    alternates = count_of(plan.alternates, "alternate")
    if plan.speed or not (plan.calls or plan.alternates):
        times = plan.times
        parts = {
            "loading": (times.loading, ""),
            "scoring": (times.scoring, ""),
            "confirming": (times.confirming, "at most"),
            "generating": (times.generating, f"at most, {alternates} of full length"),
        }
        taken = {name: it for name, it in parts.items() if it[0] != 0}
        for name, (seconds, about) in taken.items():
            if len(taken) > 1:
                known = "not known" if seconds is None else duration_text(seconds)
                table.add_row(name, known, about if seconds else "run with --measure")
        total = times.total
        bounds = "at most, " * bool(times.confirming or times.generating)
        origin = {"measured": "just measured", "remembered": "at the speed of earlier runs"}
        table.add_row(
            "time, about",
            "not known" if total is None else duration_text(total),
            bounds + origin[plan.speed] if plan.speed and total is not None else "",
        )
    console.print(Text(f"{plan.command} with {printable(plan.model)} would take", style="bold"))
    console.print(table)
    if plan.is_limit:
        console.print(Text(SCREENED))
    if plan.speed is None and (plan.calls or plan.alternates):
        place = printable(plan.place)
        unknown = f"no speed known for {printable(plan.model)} ({place}) yet: run with --measure"
        console.print(Text(f"time: {unknown}"))
        if plan.alternates:
            console.print(Text(f"and up to {alternates} would be generated"))
    for name in plan.not_planned:
        answers = f"the plugin {printable(name)} answers {plan.command} too"
        console.print(Text(f"{answers}: what it costs is not known, and not in these numbers"))
    for line in skipped_lines(plan.outcomes):
        console.print(line)


def _report(options: ScoreOptions, prepared: Prepared) -> HtmlReport | None:
    if options.html is None:
        return None
    report = HtmlReport(options.html, prepared.tables)
    report.check({"transcript": options.paths[0], "configuration": prepared.file})
    for file in options.memories:
        report.check({"file of memories": file})
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
