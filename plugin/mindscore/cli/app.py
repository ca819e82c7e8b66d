"""The command line: its commands, what they share, and their exit status."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import mindscore
from mindhooks import MindhooksError
from mindscore._util.errors import (
    LOGGERS,
    ConfigError,
    TranscriptError,
    UsageError,
    format_error,
)
from mindscore.cli import config, plugins, transfer
from mindscore.cli.advise_options import AdviseOptions
from mindscore.cli.collect_options import CollectOptions
from mindscore.cli.compare_options import CompareOptions
from mindscore.cli.interruption import DONE, FAILED, INTERRUPTED, WRONG, InterruptedRunError
from mindscore.cli.options import (
    Format,
    Json,
    MeasureOptions,
    MemoriesAnywhere,
    MemoriesFiles,
    ReviewOptions,
    RunOptions,
    ScoreOptions,
    ServeOptions,
    ShowOptions,
    TranscriptFile,
    takes_options,
)
from mindscore.cli.train_options import ExportOptions, LedgerOptions, TrainOptions

ANYWHERE = ("--debug", "--trace-hooks")
"""Options of the whole command line, which may stand before or after a command's own."""

app = typer.Typer(
    help="Measure what each memory in an agent's context does to its responses.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(config.app, name="config")
app.add_typer(plugins.app, name="plugins")
app.add_typer(transfer.app, name="store")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: done; 1: the run failed, wholly or for some memories, or no plugin took the command; 2: wrong
    usage, configuration or input; 130: interrupted.
    """
    if sys.stdout is None:
        return _fail("standard output is closed", FAILED)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A bar that the locale cannot write is no reason to fail.
            stream.reconfigure(errors="replace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    trace = logging.DEBUG if "--trace-hooks" in arguments else logging.INFO
    logging.getLogger("mindhooks").setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("mindhooks.trace").setLevel(trace)
    logging.getLogger("mindscore").setLevel(logging.DEBUG if debug else logging.WARNING)
    log = _Log()
    for name in LOGGERS:
        logging.getLogger(name).addHandler(log)
    try:
        status = app([it for it in arguments if it not in ANYWHERE], standalone_mode=False)
        # Here, where it can be reported, rather than at exit.
        sys.stdout.flush()
        # Some versions of typer turn the interrupt into its status themselves.
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        return status if isinstance(status, int) else DONE
    except InterruptedRunError as interruption:
        return _fail(str(interruption), INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except OSError as error:
        if debug:
            traceback.print_exc()
        _discard_output()
        why = error.strerror or format_error(error)
        where = f"{error.filename}: " if error.filename else "output or files: "
        return _fail(f"{where}{why}", FAILED)
    except Exception as error:
        if debug:
            traceback.print_exc()
        # Raised by typer, or by the click under it, depending on its version.
        if explain := getattr(error, "format_message", None):
            said = " ".join(explain().split()).rstrip(".")
            return _fail(f"{said}. See mindscore --help.", WRONG)
        wrong = isinstance(error, UsageError | ConfigError | TranscriptError)
        if isinstance(error, MindhooksError):
            return _fail(format_error(error), WRONG if wrong else FAILED)
        return _fail(f"unexpected {format_error(error)} (--debug shows where)", FAILED)
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(log)


class _Log(logging.Handler):
    """Our log as lines of standard error, for commands that have no screen that shows it."""

    def emit(self, record: logging.LogRecord) -> None:
        if all(logging.getLogger(name).handlers == [self] for name in LOGGERS):
            _fail(record.getMessage(), FAILED)


def _discard_output() -> None:
    """Have what standard output still holds fail no second time, as Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115


def _fail(message: str, status: int) -> int:
    from mindscore._util.text import LINE, shortened

    print(f"mindscore: {shortened(message, LINE, LINE // 3)}", file=sys.stderr)  # noqa: T201
    return status


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    _trace_hooks: Annotated[
        bool, typer.Option("--trace-hooks", help="Print a line for each call of a plugin's hook.")
    ] = False,
) -> None:
    if version:
        sys.stdout.write(f"mindscore {mindscore.__version__}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        sys.stdout.write(f"{context.get_help()}\n")


@app.command()
def demo(
    train: Annotated[
        bool,
        typer.Option("--train", help="Train on what was found, and score again: a few minutes."),
    ] = False,
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds", min=1, max=5, help="With --train: train on the answers in so many rounds."
        ),
    ] = 1,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep", metavar="FOLDER", help="With --train: keep the last adapter in a new FOLDER."
        ),
    ] = None,
) -> int:
    """Run all flows on a bundled conversation."""
    from mindscore.cli.demo import run_demo

    return run_demo(train=train, rounds=rounds, keep=keep)


@app.command()
@takes_options
def score(options: ScoreOptions) -> int:
    """Score the memories of a transcript."""
    from mindscore.cli.score import run_score

    return run_score(options)


@app.command()
@takes_options
def run(options: RunOptions) -> int:
    """Run a command that an installed plugin brings."""
    from mindscore.cli.plugins import run_command

    return run_command(options)


@app.command()
@takes_options
def compare(options: CompareOptions) -> int:
    """Compare two models on the responses of conversations.

    With all memories, with none, and without each: how likely each response is, and what each
    memory does, under both.
    """
    from mindscore.cli.compare import run_compare

    return run_compare(options)


@app.command()
@takes_options
def plan(options: MeasureOptions) -> int:
    """Estimate what scoring a transcript costs."""
    from mindscore.cli.score import run_plan

    return run_plan(options)


@app.command()
@takes_options
def show(options: ShowOptions) -> int:
    """Show what is stored of a conversation.

    No model is loaded and nothing is measured. Without an argument, list the conversations.
    """
    from mindscore.cli.show import run_show

    return run_show(options)


@app.command()
@takes_options
def advise(options: AdviseOptions) -> int:
    """Say which memories to keep, by all that was scored.

    Nothing is changed. With --verify, what is proposed is removed together and measured.
    """
    from mindscore.cli.advise import run_advise

    return run_advise(options)


@app.command("list")
def list_(
    file: TranscriptFile,
    format_: Format = None,
    memories: MemoriesFiles = [],  # noqa: B006 - typer makes a list of its own
    memories_anywhere: MemoriesAnywhere = False,
    json: Json = False,
) -> int:
    """List the conversations of a file.

    With the memories that are found in each.
    """
    from mindscore.cli.score import run_list

    return run_list(file, format_, memories, memories_anywhere, json)


@app.command()
@takes_options
def serve(options: ServeOptions) -> int:
    """Serve the local model over HTTP."""
    from mindscore.cli.serving import run_serve

    return run_serve(options)


@app.command()
@takes_options
def collect(options: CollectOptions) -> int:
    """Take the turns of agents elsewhere, and score them.

    By OpenTelemetry, or as plain JSON: any agent, in any language.
    """
    from mindscore.cli.collect import run_collect

    return run_collect(options)


@app.command()
@takes_options
def review(options: ReviewOptions) -> int:
    """Serve a page to review candidates on.

    It shows runs, memories and the matrix, too, and answers to this machine only.
    """
    from mindscore.cli.serving import run_review

    return run_review(options)


@app.command()
@takes_options
def export(options: ExportOptions) -> int:
    """Write the accepted candidates to a file.

    Trainers load it; no candidate is marked as trained.
    """
    from mindscore.cli.train import run_export

    return run_export(options)


@app.command()
@takes_options
def train(options: TrainOptions) -> int:
    """Send the accepted candidates to the trainer.

    Each is sent once.
    """
    from mindscore.cli.train import run_train

    return run_train(options)


@app.command()
@takes_options
def ledger(options: LedgerOptions) -> int:
    """Show which memories the model has internalised, round after round of training."""
    from mindscore.cli.ledger import run_ledger

    return run_ledger(options)
