"""``mindscore train``: the accepted candidates, handed to the trainer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mindhooks import MindhooksError
from mindscore.cli.interruption import run_until_interrupted
from mindscore.cli.output import own_output, write_json
from mindscore.cli.screen import Screen
from mindscore.cli.selected import (
    NO_CANDIDATES,
    PROMPTS,
    counted,
    remarks,
    selected,
    unselected,
    without_other,
)
from mindscore.cli.status import DONE, FAILED
from mindscore.config_file import Configuration, load_configuration
from mindscore.errors import ConfigError, TrainError, UsageError, reason
from mindscore.sinks.hand_off import Division, HandOff, Sent, open_hand_off, tokens_of
from mindscore.sinks.selection import Selection
from mindscore.store import Send
from mindscore.text import printable


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What was asked for on the command line."""

    dry_run: bool
    unreviewed: bool
    resend_unknown: bool
    model: str | None
    config_file: Path | None
    assignments: Sequence[str]
    json: bool


@dataclass(slots=True)
class _Run:
    """What was to be sent and what became of it, as far as it came."""

    model: str | None = None
    destination: str | None = None
    selection: Selection = field(default_factory=lambda: Selection((), 0, 0))
    division: Division = field(default_factory=lambda: Division((), 0, 0, 0))
    to_resend: list[Send] = field(default_factory=list)
    resent: list[Sent] = field(default_factory=list)
    sent: Sent | None = None
    inexact: int = 0
    error: str | None = None


def run_train(request: TrainRequest) -> int:
    """Send what is accepted, say what became of it, and return the exit status."""
    configuration = load_configuration(request.config_file, request.assignments)
    screen, run = Screen(), _Run()
    with screen, own_output():
        run_until_interrupted(lambda: _carry_out(request, configuration, run), _so_far)
    if request.json:
        write_json(_document(request, configuration, run))
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(request, configuration, run))
    if run.error is None:
        return DONE
    screen.complain(run.error)
    return FAILED


async def _carry_out(request: TrainRequest, configuration: Configuration, run: _Run) -> None:
    try:
        async with open_hand_off(configuration.tables) as hand_off:
            run.destination = hand_off.destination
            run.model, run.selection = await selected(
                configuration, request.model, unreviewed=request.unreviewed
            )
            run.division = await hand_off.divide(run.selection.samples)
            if request.resend_unknown:
                run.to_resend = await hand_off.unknown()
                run.division = replace(run.division, unknown=0)
            if not run.division.samples and not run.to_resend:
                whys = "; ".join(_left_out(run, hand_off.name)) or NO_CANDIDATES
                raise TrainError(f"nothing to send: {whys}")
            if not request.dry_run:
                await _send(hand_off, run)
    except (ConfigError, UsageError):
        raise
    except MindhooksError as error:
        run.error = reason(error)


async def _send(hand_off: HandOff, run: _Run) -> None:
    try:
        for send in run.to_resend:
            if again := await hand_off.resend(send):
                run.resent.append(again)
        run.sent = await hand_off.send(run.division.samples)
        if run.sent is None and not run.resent:
            raise TrainError("nothing to send: another process was quicker")
    finally:
        run.inexact = hand_off.inexact


def _so_far() -> str:
    return ": what was on its way is in mindscore store sent"


def _lines(request: TrainRequest, configuration: Configuration, run: _Run) -> Iterator[str]:
    """What is printed for people."""
    sink = printable(configuration.settings.train.sink)
    for again in run.resent:
        yield f"{sink} took {_amount(again)} again: {printable(again.job_id)}"
    if run.sent is not None:
        yield f"{sink} took {_amount(run.sent)}: {printable(run.sent.job_id)}"
    if run.error is not None:
        return
    if request.dry_run:
        yield from _intended(run, sink, PROMPTS[configuration.settings.train.context])
    yield from (f"left out: {why}" for why in _left_out(run, sink))
    yield from remarks(run.inexact)
    if not request.dry_run:
        yield from _next(run, sink)


def _next(run: _Run, sink: str) -> Iterator[str]:
    taken = [*run.resent, *([run.sent] if run.sent else [])]
    if sink == "http" and taken:
        job = f"{printable(run.destination or '')}/{printable(taken[-1].job_id)}"
        yield f"with mindscore serve --train: GET {job} says how it goes,"
        yield f"  POST {job}/activate swaps the adapter in"


def _intended(run: _Run, sink: str, prompts: str) -> Iterator[str]:
    where = f"{sink}, {printable(run.destination or '')}"
    if run.to_resend:
        responses = sum(it.responses for it in run.to_resend)
        yield f"would send {responses} responses again, under their old keys, to {where}"
    samples = run.division.samples
    yield f"would send {counted(len(samples), tokens_of(samples))}, {prompts}, to {where}"


def _left_out(run: _Run, sink: str) -> Iterator[str]:
    division = run.division
    yield from unselected(run.selection)
    if division.had:
        yield f"{division.had} that {sink} has"
    if division.unknown:
        yield (
            f"{division.unknown} that {sink} may have: mindscore store sent, or --resend-unknown "
            "sends them again under their old keys"
        )
    yield from without_other(division.without_other)


def _amount(sent: Sent) -> str:
    return counted(sent.responses, sent.tokens)


def _document(request: TrainRequest, configuration: Configuration, run: _Run) -> Mapping[str, Any]:
    train, samples = configuration.settings.train, run.division.samples
    return {
        "command": "train",
        "dry_run": request.dry_run,
        "model": run.model,
        "sink": train.sink,
        "destination": run.destination,
        "context": train.context,
        "responses": len(samples),
        "tokens": tokens_of(samples),
        "resend": run.to_resend,
        "sent": run.sent,
        "resent": run.resent,
        "left_out": {
            "waiting": run.selection.waiting,
            "rejected": run.selection.rejected,
            "had": run.division.had,
            "unknown": run.division.unknown,
            "without_other": run.division.without_other,
        },
        "inexact": run.inexact,
        "error": run.error,
    }
