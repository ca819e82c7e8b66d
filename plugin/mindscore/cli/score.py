"""``mindscore score``: one command over one transcript."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mindhooks import MindCommand, Registry
from mindhooks.testing import StubMind
from mindscore._util.aio import share_one_arena
from mindscore._util.errors import ConfigError, UsageError
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.config.file import Configuration, load_configuration, merge
from mindscore.config.settings import parse_settings
from mindscore.conversation.conversation import Transcript
from mindscore.display.documents import document
from mindscore.display.screen import Screen, new_console, own_output, write_json
from mindscore.display.tables import show_result
from mindscore.pages.environment import environment
from mindscore.readers.conversations import read_chosen
from mindscore.report.file import ReportFile
from mindscore.report.page import render
from mindscore.session.result import Result, model_name, run_in
from mindscore.session.session import Session, TranscriptMind
from mindscore.session.words import spoken_words

PATIENCE_S = 60.0
"""How long a model server may take to say what the words of the responses are."""


class HtmlReport:
    """The page that is to be written to ``file`` after a run by the settings in ``tables``.

    ``patience_s``: how many seconds it may take to learn the words of the responses.
    """

    def __init__(
        self, file: Path, tables: Mapping[str, Any], patience_s: float = PATIENCE_S
    ) -> None:
        self._file = ReportFile(file)
        self._settings = parse_settings(tables)
        self._patience_s = patience_s
        self._without_words: str | None = None

    def check(self, others: Mapping[str, Path | None]) -> None:
        """Refuse, before anything is scored, what could not be written, or must not be.

        ``others`` are the files that the run reads, by what they are; ``None`` is none.

        Raises:
            UsageError: says why.
        """
        from mindscore.store.database import file_of

        environment("mindscore.report")
        named = {what: file for what, file in others.items() if file is not None}
        self._file.check({**named, "store": file_of(self._settings.store.url)})

    async def with_words(self, session: Session, result: Result) -> Result:
        """``result`` with the words of the responses of which single tokens are known."""
        told = {
            cell.node_id
            for score in result.scores.values()
            for cell in score.divergences
            if cell.tokens is not None
        }
        if not told:
            return result
        with session.mind.activity("report: words of the responses"):
            context, scorer = await session.mind.context(), await session.registry.scorer()
            try:
                async with asyncio.timeout(self._patience_s):
                    words = await spoken_words(context, told, scorer)
            except TimeoutError:
                self._without_words = (
                    f"the server did not say within {self._patience_s:g} s what their tokens are"
                )
                return result
            return replace(result, words=words)

    def write(self, result: Result) -> None:
        """Write the page.

        Raises:
            UsageError: it cannot be written.
        """
        self._file.write(render(result, self._settings, self._without_words))


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


def so_far(mind: TranscriptMind, command: str, keys: Sequence[str]) -> str:
    """What an interrupted command has found, and whether that is kept."""
    found = f"{len(mind.scores)} of {len(keys)} memories were scored"
    if command == MindCommand.SCORE_FINETUNE:
        found = f"{len(mind.candidates)} candidates were found"
    error = mind.unkept_error(command)
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


async def configured_model(configuration: Configuration) -> str:
    """What the configured scorer calls its model, as the recorder keeps it."""
    try:
        async with Registry(StubMind(), configuration.tables) as registry:
            return await model_name(registry)
    except ConfigError:
        # A scorer that cannot be built, as one without an address, still has its model's name.
        return configuration.settings.server.model


async def one_model(
    models: Collection[str], asked: str | None, configuration: Configuration, what: str
) -> str | None:
    """The model asked for, the only one there is, or the configured one; ``None`` for none.

    ``what`` is kept of ``models``, for errors.

    Raises:
        UsageError: none of that name is there, or it has to be said which.
    """
    known = sorted(set(models))
    if asked is not None and asked not in known:
        raise UsageError(f"no {what} of model {asked!r} are kept")
    if asked is None and len(known) > 1:
        configured = await configured_model(configuration)
        if configured in known:
            return configured
        raise UsageError(
            f"{what} of several models are kept: choose one of {', '.join(known)} with --model"
        )
    return asked or (known[0] if known else None)
