"""The options of the commands that hand candidates to a trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mindscore.cli.options import ConfigOptions, Json


@dataclass(frozen=True, kw_only=True)
class CandidateOptions(ConfigOptions):
    """The options of commands that select candidates to train on."""

    unreviewed: Annotated[
        bool,
        Option(
            "--unreviewed", help="Include candidates that nobody has reviewed; never rejected ones."
        ),
    ] = False
    model: Annotated[
        str | None,
        Option("--model", metavar="NAME", help="Model of the candidates, where there are several."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ExportOptions(CandidateOptions):
    """The options of ``export``."""

    file: Annotated[Path, Argument(metavar="FILE", help="JSON Lines file to write.")]
    format: Annotated[
        str | None,
        Option(
            "--format",
            metavar="NAME",
            help="input_ids, prompt_completion, messages or preference.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrainOptions(CandidateOptions):
    """The options of ``train``."""

    dry_run: Annotated[
        bool, Option("--dry-run", help="Say what would be sent, and send nothing.")
    ] = False
    no_wait: Annotated[
        bool,
        Option("--no-wait", help="Leave the job to mindscore serve --train, and write no ledger."),
    ] = False
    resend_unknown: Annotated[
        bool, Option("--resend-unknown", help="Send again what has an unknown outcome.")
    ] = False
    json: Json = False


@dataclass(frozen=True, kw_only=True)
class LedgerOptions(ConfigOptions):
    """The options of ``ledger``."""

    measure: Annotated[
        str | None,
        Option(
            "--measure",
            metavar="ROUND",
            help="First measure with the model as it is now, as the round of this name.",
        ),
    ] = None
    model: Annotated[
        str | None,
        Option("--model", metavar="NAME", help="Model of the rounds, where there are several."),
    ] = None
    json: Json = False
