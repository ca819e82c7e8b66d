"""``mindscore score``: one command over one transcript."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindhooks import MindhooksError, Registry, UnhandledCommand, UnknownScorer
from mindscore.cli.documents import document
from mindscore.cli.output import new_console, own_output, write_json
from mindscore.cli.result import Result, gather_result
from mindscore.cli.screen import Screen
from mindscore.cli.status import DONE, FAILED
from mindscore.cli.tables import show_result
from mindscore.config import parse_settings
from mindscore.config_file import Configuration, load_configuration, merge
from mindscore.errors import ConfigError, UsageError, reason
from mindscore.host import Session, TranscriptMind
from mindscore.transcripts import Transcript, read_transcript


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    transcript: Path
    command: str
    only: tuple[str, ...]
    all_due: bool
    config_file: Path | None
    assignments: tuple[str, ...]
    json: bool


def run_score(request: Request) -> int:
    """Run the command, print what it found, and return the exit status."""
    configuration = load_configuration(request.config_file, request.assignments)
    transcript = read_transcript(request.transcript)
    keys = _selected(transcript, request.only)
    tables = _with_selection(configuration, request)
    with Screen() as screen, own_output():
        mind = TranscriptMind(transcript, screen.activity)
        result = asyncio.run(_run(mind, tables, request.command, keys))
    if request.json:
        write_json(document(result))
    else:
        show_result(new_console(), result)
    if result.error is None:
        return DONE
    screen.complain(result.error)
    return FAILED


async def _run(
    mind: TranscriptMind, tables: dict[str, Any], command: str, keys: tuple[str, ...]
) -> Result:
    async with Session(mind, tables) as session:
        model = await model_name(session.registry)
        return await run_in(session, command, model, keys)


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


def _with_selection(configuration: Configuration, request: Request) -> dict[str, Any]:
    tables = dict(configuration.tables)
    if request.only:
        own = {"memory-scoring": {"only": list(request.only)}}
        tables = merge(tables, {"plugins": {"settings": own}})
    if request.all_due:
        tables = merge(tables, {"memory": {"interval_s": 0}})
    return tables
