"""``mindscore export``: the accepted candidates as a file that trainers load."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mindhooks import TrainingSample
from mindscore.cli.interruption import run_until_interrupted
from mindscore.cli.output import own_output
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
from mindscore.cli.status import DONE
from mindscore.config_file import Configuration, load_configuration
from mindscore.errors import TrainError, UsageError
from mindscore.sinks.files import provenance_file, write_samples
from mindscore.sinks.formats import FORMATS
from mindscore.sinks.hand_off import tokens_of
from mindscore.sinks.selection import Selection
from mindscore.sinks.texts import Texts
from mindscore.text import printable


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
        *(f"left out: {why}" for why in _left_out(selection, samples)),
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
        why = "; ".join(_left_out(selection, fit)) or NO_CANDIDATES
        raise TrainError(f"nothing to write: {why}")
    try:
        return selection, await texts.added(fit) if kind.wants_text else fit
    finally:
        await texts.aclose()


def _left_out(selection: Selection, samples: Sequence[TrainingSample]) -> list[str]:
    unwritten = len(selection.samples) - len(samples)
    return [*unselected(selection), *without_other(unwritten)]
