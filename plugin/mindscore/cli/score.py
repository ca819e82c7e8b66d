"""``mindscore score``: one command over one transcript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindhooks import MindCommand, MindhooksError, Registry, UnhandledCommand, UnknownScorer
from mindscore.cli.documents import document
from mindscore.cli.html import HtmlReport
from mindscore.cli.interruption import run_until_interrupted
from mindscore.cli.memory import share_one_arena
from mindscore.cli.output import new_console, own_output, write_json
from mindscore.cli.result import Result, gather_result
from mindscore.cli.screen import Screen
from mindscore.cli.status import DONE, FAILED
from mindscore.cli.tables import show_result
from mindscore.config import parse_settings
from mindscore.config_file import Configuration, load_configuration, merge
from mindscore.errors import ConfigError, UsageError, reason
from mindscore.host import Session, TranscriptMind
from mindscore.readers.conversations import read_chosen
from mindscore.transcripts import Transcript


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    transcript: Path
    command: str
    only: tuple[str, ...]
    format: str | None
    memories: Path | None
    select: str | None
    all_due: bool
    hold: bool
    resume: bool
    max_tokens: int | None
    self_test: bool
    html: Path | None
    config_file: Path | None
    assignments: tuple[str, ...]
    json: bool

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: names them.
        """
        if self.command == MindCommand.SCORE_FINETUNE and self.only:
            raise UsageError("--memory does not go with --finetune, which removes all memories")
        if self.hold and self.command != MindCommand.SCORE_FULL:
            raise UsageError("--hold goes with --full")
        if self.resume and self.command != MindCommand.SCORE_FULL:
            raise UsageError("--resume goes with --full: without it, what is scored is not due")
        if self.max_tokens is not None and self.command != MindCommand.SCORE:
            raise UsageError("--max-tokens goes with neither --full nor --finetune: see plan")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request with all that it needs, read and checked."""

    mind: TranscriptMind
    tables: dict[str, Any]
    keys: tuple[str, ...]
    report: HtmlReport | None


def prepare(request: Request, screen: Screen) -> Prepared:
    """Read the configuration and the transcript that ``request`` names.

    Raises:
        UsageError: options do not go together, or name a memory or a conversation that is not
            there, or a report that cannot be written.
        ConfigError: the configuration is wrong.
        TranscriptError: the transcript is.
    """
    request.check()
    configuration = load_configuration(request.config_file, request.assignments)
    transcript = read_chosen(request.transcript, request.format, request.select, request.memories)
    keys = _selected(transcript, request.only)
    tables = _with_options(configuration, request)
    report = None
    if request.html is not None:
        report = HtmlReport(request.html, tables)
        report.check(
            {
                "transcript": request.transcript,
                "file of memories": request.memories,
                "configuration": configuration.file,
            }
        )
    return Prepared(TranscriptMind(transcript, screen.activity), tables, keys, report)


def run_score(request: Request) -> int:
    """Run the command, print what it found, and return the exit status."""
    share_one_arena()
    screen = Screen()
    prepared = prepare(request, screen)
    with screen, own_output():
        result = run_until_interrupted(
            lambda: _run(prepared, request.command),
            lambda: so_far(prepared.mind, request.command, prepared.keys),
        )
    if request.json:
        write_json(document(result))
    else:
        show_result(new_console(), result)
    if result.error is not None:
        screen.complain(result.error)
    if prepared.report is not None:
        prepared.report.write(result)
    return DONE if result.error is None else FAILED


async def _run(prepared: Prepared, command: str) -> Result:
    async with Session(prepared.mind, prepared.tables) as session:
        model = await model_name(session.registry)
        result = await run_in(session, command, model, prepared.keys)
        if prepared.report is not None:
            return await prepared.report.with_words(session, result)
        return result


async def run_in(session: Session, command: str, model: str, keys: tuple[str, ...]) -> Result:
    """Run one command of a session; that nobody took it is a result too."""
    error = None
    try:
        await session.run(command)
    except UnhandledCommand as unhandled:
        error = f"{unhandled}: is its plugin disabled? See mindscore plugins."
    for name, failure in session.registry.task_errors().items():
        error = error or f"{name}: {reason(failure)}"
    return gather_result(session.mind, command, model, keys, error)


def so_far(mind: TranscriptMind, command: str, keys: Sequence[str]) -> str:
    """What an interrupted command has found, and whether that is kept."""
    found = f"{len(mind.scores)} of {len(keys)} memories were scored"
    if command == MindCommand.SCORE_FINETUNE:
        found = f"{len(mind.candidates)} candidates were found"
    error = mind.unkept_error(command)
    kept = "that is kept" if error is None else error
    more = "; --full --resume goes on" if command == MindCommand.SCORE_FULL and not error else ""
    return f": {found}; {kept}{more}"


async def model_name(registry: Registry) -> str:
    """The scorer's model; where it cannot be built, the one that the settings name.

    Raises:
        ConfigError: it cannot be built because of the configuration. Any other reason is met
            again, and reported, by the flow.
    """
    try:
        return (await registry.scorer()).model
    except ConfigError:
        raise
    except UnknownScorer as error:
        raise ConfigError(reason(error)) from None
    except MindhooksError:
        return parse_settings(registry.settings).server.model


def _selected(transcript: Transcript, only: Sequence[str]) -> tuple[str, ...]:
    known = transcript.keys()
    for key in only:
        if key not in known:
            raise UsageError(
                f"--memory {key}: {transcript.file} holds no such memory; "
                f"it holds {', '.join(known) or 'none'}"
            )
    return tuple(key for key in known if not only or key in only)


def _with_options(configuration: Configuration, request: Request) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if request.only:
        own["only"] = list(request.only)
    if request.hold:
        own["hold"] = True
    if request.resume:
        own["resume"] = True
    if request.max_tokens is not None:
        own["max_tokens"] = request.max_tokens
    if request.html is not None:
        own["tokens"] = True
    options: dict[str, Any] = {}
    if own:
        options["plugins"] = {"settings": {"memory-scoring": own}}
    if request.all_due:
        options["memory"] = {"interval_s": 0}
    if not request.self_test:
        options["server"] = {"self_test": False}
    return merge(configuration.tables, options)
