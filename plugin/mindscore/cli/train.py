"""``mindscore train``: the accepted candidates, handed to the trainer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from mindhooks import MindhooksError, TrainingSample
from mindscore._util.errors import ConfigError, TrainError, UsageError, format_error
from mindscore._util.text import printable
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.cli.score import one_model
from mindscore.config.file import Configuration, load_configuration
from mindscore.display.screen import Screen, own_output, write_json
from mindscore.store import Reviews, Send
from mindscore.training.outbox import Division, Outbox, Sent, open_outbox, tokens_of
from mindscore.training.selection import Selection, select
from mindscore.training.sinks.formats import FORMATS
from mindscore.training.sinks.jsonl import provenance_file, write_samples
from mindscore.training.texts import Texts

NO_CANDIDATES = "no candidates are kept: mindscore score CONVERSATION --finetune finds some"

PROMPTS = {"bare": "without memories", "full": "with memories"}
"""What is said of the prompts, by ``train.context``."""


class Selected(NamedTuple):
    """Of which model, and what; the model is ``None`` where there are no candidates."""

    model: str | None
    selection: Selection


async def selected(
    configuration: Configuration, model: str | None, *, unreviewed: bool
) -> Selected:
    """The candidates of ``model``, the only or the configured one, that are to be trained on.

    Raises:
        UsageError: no candidates of that model are kept, or it has to be said which.
    """
    queue = await Reviews(configuration.settings.store).queue()
    models = {it.model for it in queue}
    chosen = await one_model(models, model, configuration, "candidates")
    mine = [it for it in queue if it.model == chosen]
    return Selected(chosen, select(mine, configuration.settings, unreviewed=unreviewed))


def counted(responses: int, tokens: int) -> str:
    """So many responses, and their tokens with those of their prompts."""
    return f"{responses:,} responses ({tokens:,} tokens)"


def unselected(selection: Selection) -> Iterator[str]:
    """How many candidates are not selected, and why; what there is none of is not said."""
    if selection.waiting:
        yield f"{selection.waiting} wait for review: mindscore review, or --unreviewed"
    if selection.rejected:
        yield f"{selection.rejected} rejected in review"


def without_other(count: int) -> Iterator[str]:
    """How many have no answer but the chosen one, if any."""
    if count:
        yield f"{count} without another answer that the chosen one is preferred to"


def remarks(inexact: int) -> Iterator[str]:
    """What is to be known of texts, if anything."""
    if inexact:
        yield (
            f"{inexact} of the texts, tokenised, are other tokens than were measured: "
            "only the format input_ids is exact there"
        )


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What was asked for on the command line."""

    file: Path
    format: str | None
    unreviewed: bool
    model: str | None
    config_file: Path | None
    assignments: Sequence[str]


def run_export(request: ExportRequest) -> int:
    """Write the file, say what is in it, and return the exit status.

    Raises:
        UsageError: there is no such format, or the file cannot be written.
        TrainError: nothing is there to be written.
    """
    configuration = load_configuration(request.config_file, request.assignments)
    format_ = request.format or configuration.settings.train.format
    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: expected one of {', '.join(FORMATS)}")
    if request.file.exists() and not request.file.is_file():
        raise UsageError(f"{request.file}: cannot be written: it is no regular file")
    texts = Texts(configuration.tables)
    with Screen(), own_output():
        selection, samples = run_until_interrupted(
            lambda: _samples(request, configuration, format_, texts), lambda: ""
        )
    try:
        write_samples(request.file, samples, format_)
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"{request.file}: cannot be written: {why}") from None
    prompts = PROMPTS[configuration.settings.train.context]
    lines = [
        f"wrote {counted(len(samples), tokens_of(samples))}, {prompts}, to {request.file}",
        f"where each line comes from: {provenance_file(request.file)}",
        *(f"left out: {why}" for why in _left_out_of_export(selection, samples)),
        *remarks(texts.inexact),
    ]
    sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
    return DONE


async def _samples(
    request: ExportRequest, configuration: Configuration, format_: str, texts: Texts
) -> tuple[Selection, list[TrainingSample]]:
    _, selection = await selected(configuration, request.model, unreviewed=request.unreviewed)
    kind = FORMATS[format_]
    fit = [it for it in selection.samples if it.rejected_ids is not None or not kind.wants_rejected]
    if not fit:
        why = "; ".join(_left_out_of_export(selection, fit)) or NO_CANDIDATES
        raise TrainError(f"nothing to write: {why}")
    try:
        return selection, await texts.added(fit) if kind.wants_text else fit
    finally:
        await texts.aclose()


def _left_out_of_export(selection: Selection, samples: Sequence[TrainingSample]) -> list[str]:
    unwritten = len(selection.samples) - len(samples)
    return [*unselected(selection), *without_other(unwritten)]


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
        async with open_outbox(configuration.tables) as hand_off:
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
        run.error = format_error(error)


async def _send(hand_off: Outbox, run: _Run) -> None:
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
