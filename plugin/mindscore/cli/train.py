"""``mindscore export`` and ``mindscore train``: hand accepted candidates to a trainer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from mindhooks import MindhooksError, TrainingSample
from mindscore._util.errors import ConfigError, TrainError, UsageError, format_error
from mindscore._util.text import count_of, printable
from mindscore.cli.interruption import DONE, FAILED, run_until_interrupted
from mindscore.cli.rounds import Followed, Follower
from mindscore.cli.store import one_model
from mindscore.cli.train_options import CandidateOptions, ExportOptions, TrainOptions
from mindscore.config.file import Configuration
from mindscore.display.screen import Screen, own_output, write_json
from mindscore.store import Reviews, Send
from mindscore.training.outbox import (
    Division,
    Outbox,
    Selection,
    Sent,
    open_outbox,
    select,
    tokens_of,
)
from mindscore.training.sinks.formats import FORMATS
from mindscore.training.sinks.jsonl import provenance_file, write_samples
from mindscore.training.texts import Texts

NO_CANDIDATES = "no candidates are kept: mindscore score CONVERSATION --finetune finds some"
NO_MORE = "all candidates that are kept were sent before"

PROMPTS = {"bare": "without memories", "full": "with memories"}
"""Words for the prompts, by ``train.context``."""


async def _selected(
    options: CandidateOptions, configuration: Configuration
) -> tuple[str | None, Selection]:
    """Select candidates to train on; return their model, ``None`` for no candidates, and them.

    Raises:
        UsageError: no candidates of the model asked for are stored, or it must be said which.
    """
    queue = await Reviews(configuration.settings.store).queue()
    model = await one_model({it.model for it in queue}, options.model, configuration, "candidates")
    of_model = [it for it in queue if it.model == model]
    return model, select(of_model, configuration.settings, unreviewed=options.unreviewed)


def counted(responses: int, tokens: int) -> str:
    """Return a number of responses and of tokens, their prompts' included, in words."""
    return f"{count_of(responses, 'response')} ({count_of(tokens, 'token')})"


def unselected(selection: Selection) -> Iterator[str]:
    """Yield the reasons why candidates are not selected, each with their number."""
    if selection.waiting:
        yield f"{selection.waiting} wait for review: mindscore review, or --unreviewed"
    if selection.rejected:
        yield f"{selection.rejected} rejected in review"


def without_other(count: int) -> Iterator[str]:
    """Yield a line on candidates without a rejected answer, if there are any."""
    if count:
        yield f"{count} without a second answer, which the format preference needs"


def remarks(inexact: int) -> Iterator[str]:
    """Yield a line on texts that are not the measured tokens, if there are any."""
    if inexact:
        yield (
            f"{count_of(inexact, 'text')} would be tokenised differently from what was measured: "
            "only the format input_ids is exact for them"
        )


def run_export(options: ExportOptions) -> int:
    """Write the file, print what it holds, and return the exit status.

    Raises:
        UsageError: there is no such format, or the file cannot be written.
        TrainError: there is nothing to write.
    """
    configuration = options.load()
    format_ = options.format or configuration.settings.train.format
    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: expected one of {', '.join(FORMATS)}")
    if options.file.exists() and not options.file.is_file():
        raise UsageError(f"{options.file}: cannot be written: it is no regular file")
    texts = Texts(configuration.tables)
    with Screen(), own_output():
        selection, samples = run_until_interrupted(
            lambda: _samples(options, configuration, format_, texts), lambda: ""
        )
    try:
        write_samples(options.file, samples, format_)
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"{options.file}: cannot be written: {why}") from None
    prompts = PROMPTS[configuration.settings.train.context]
    lines = [
        f"wrote {counted(len(samples), tokens_of(samples))}, {prompts}, to {options.file}",
        f"where each line comes from: {provenance_file(options.file)}",
        *(f"left out: {why}" for why in _left_out_of_export(selection, samples)),
        *remarks(texts.inexact),
    ]
    sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
    return DONE


async def _samples(
    options: ExportOptions, configuration: Configuration, format_: str, texts: Texts
) -> tuple[Selection, list[TrainingSample]]:
    _, selection = await _selected(options, configuration)
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


@dataclass(slots=True)
class _Run:
    """The progress of sending: what was to be sent, and what became of it."""

    model: str | None = None
    destination: str | None = None
    selection: Selection = field(default_factory=lambda: Selection((), 0, 0))
    division: Division = field(default_factory=lambda: Division((), 0, 0, 0))
    to_resend: list[Send] = field(default_factory=list)
    resent: list[Sent] = field(default_factory=list)
    sent: Sent | None = None
    inexact: int = 0
    error: str | None = None
    followed: list[Followed] = field(default_factory=list)

    @property
    def taken(self) -> list[Sent]:
        """All that the sink took, the last at the end."""
        return [*self.resent, *([self.sent] if self.sent else [])]


def run_train(options: TrainOptions) -> int:
    """Send the accepted candidates, print what became of them, and return the exit status."""
    configuration = options.load()
    screen, run = Screen("sending"), _Run()
    with screen, own_output():
        run_until_interrupted(
            lambda: _carry_out(options, configuration, run, screen), lambda: _so_far(run)
        )
    if options.json:
        write_json(_document(options, configuration, run))
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(options, configuration, run))
    if run.error is None:
        return DONE
    screen.complain(run.error)
    return FAILED


async def _carry_out(
    options: TrainOptions, configuration: Configuration, run: _Run, screen: Screen
) -> None:
    try:
        async with open_outbox(configuration.tables) as hand_off:
            run.destination = hand_off.destination
            run.model, run.selection = await _selected(options, configuration)
            if run.model is not None and hand_off.trained_model not in (None, run.model):
                raise TrainError(
                    f"the candidates are of the model {run.model!r}, and {hand_off.name} would "
                    f"train {hand_off.trained_model!r}, as server.model says: set "
                    "train.options.model to the weights of the former, or choose others with "
                    "--model"
                )
            run.division = await hand_off.divide(run.selection.samples)
            if options.resend_unknown:
                run.to_resend = await hand_off.unknown()
                run.division = replace(run.division, unknown=0)
            if not run.division.samples and not run.to_resend:
                nothing = NO_CANDIDATES if run.model is None else NO_MORE
                whys = "; ".join(_left_out(run, hand_off.name)) or nothing
                raise TrainError(f"nothing to send: {whys}")
            follower = Follower(configuration, screen, run.model or "")
            try:
                if not options.dry_run:
                    await _send(hand_off, run)
            except TrainError:
                if (refused := hand_off.ended_job) is not None:
                    await follower.keep_refused(refused)
                raise
            jobs = [it.job_id for it in run.taken] if hand_off.tells_jobs else []
            ended = hand_off.ended_job if run.taken else None
        if options.no_wait:
            return
        run.followed = follower.followed
        if ended is not None:
            await follower.write_round(ended)
        await follower.follow(jobs)
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


def _so_far(run: _Run) -> str:
    if run.taken:
        return f": the trainer goes on with job {run.taken[-1].job_id}"
    return ": what was on its way is in mindscore store sent"


def _lines(options: TrainOptions, configuration: Configuration, run: _Run) -> Iterator[str]:
    sink = printable(configuration.settings.train.sink)
    for again in run.resent:
        yield f"{sink} took {_amount(again)} again: {printable(again.job_id)}"
    if run.sent is not None:
        yield f"{sink} took {_amount(run.sent)}: {printable(run.sent.job_id)}"
    for followed in run.followed:
        yield from _outcome(followed)
    if run.error is not None:
        return
    if options.dry_run:
        yield from _intended(run, sink, PROMPTS[configuration.settings.train.context])
    yield from (f"left out: {why}" for why in _left_out(run, sink))
    yield from remarks(run.inexact)
    if not options.dry_run:
        yield from _next(run, sink)


def _outcome(followed: Followed) -> Iterator[str]:
    job = followed.job
    yield job.words
    if job.sample_loss is not None:
        loss = job.sample_loss
        yield f"trained answers: {loss.before:.3f} → {loss.after:.3f} nats per token"
    if job.guard is not None:
        yield job.guard.words
    yield f"its adapter: {printable(job.adapter or '')}"
    yield from map(printable, followed.remarks)
    if followed.round is not None:
        yield f"round {printable(job.job_id)} is in the ledger: mindscore ledger"
    elif followed.unwritten is not None:
        yield f"the ledger has no round of it: {printable(followed.unwritten)}"


def _next(run: _Run, sink: str) -> Iterator[str]:
    if run.followed:
        folder = printable(run.followed[-1].job.adapter or "")
        yield f"before it is used: mindscore compare CONVERSATION --with {folder}"
    if sink == "peft" and run.followed:
        name = printable(run.followed[-1].job.job_id)
        yield f"vLLM serves it with --enable-lora --lora-modules {name}={folder}"
    if sink != "http" or not run.taken:
        return
    job = f"{printable(run.destination or '')}/{printable(run.taken[-1].job_id)}"
    if run.followed:
        yield f"POST {job}/activate swaps it in"
    else:
        yield f"with mindscore serve --train: GET {job} says how it goes,"
        yield f"  POST {job}/activate swaps the adapter in"


def _intended(run: _Run, sink: str, prompts: str) -> Iterator[str]:
    where = f"{sink}, {printable(run.destination or '')}"
    if run.to_resend:
        responses = count_of(sum(it.responses for it in run.to_resend), "response")
        yield f"would send {responses} again, under their old keys, to {where}"
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


def _document(options: TrainOptions, configuration: Configuration, run: _Run) -> Mapping[str, Any]:
    train, samples = configuration.settings.train, run.division.samples
    return {
        "command": "train",
        "dry_run": options.dry_run,
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
        **({"jobs": list(map(_job, run.followed))} if run.followed else {}),
    }


def _job(followed: Followed) -> Mapping[str, Any]:
    return {
        **msgspec.structs.asdict(followed.job),
        "round": followed.round and followed.round.name,
        "unwritten": followed.unwritten,
        "remarks": followed.remarks,
    }
