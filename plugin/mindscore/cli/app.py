"""The commands and their options; what a command does is imported when it is called."""

from __future__ import annotations

import io
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mindhooks import MindhooksError
from mindscore._util.errors import ConfigError, TranscriptError, UsageError, format_error
from mindscore.cli import config, plugins, store
from mindscore.cli.interruption import DONE, FAILED, INTERRUPTED, WRONG, InterruptedRunError
from mindscore.cli.options import (
    All,
    Assignments,
    ConfigFile,
    Finetune,
    Format,
    Full,
    Hold,
    Html,
    Json,
    MaxTokens,
    Memories,
    MemoriesFile,
    Model,
    Resume,
    Select,
    Transcript,
    Unreviewed,
    command_of,
)

ANYWHERE = ("--debug", "--trace-hooks")
"""Options of the whole command line, which may stand before or after a command's own."""

app = typer.Typer(
    help="Measure what each memory in an agent's context does to its responses.",
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(config.app, name="config")
app.add_typer(plugins.app, name="plugins")
app.add_typer(store.app, name="store")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status.

    0 done; 1 the run failed, wholly or for some memories, or nobody took the command; 2 wrong
    usage, configuration or input; 130 interrupted.
    """
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
    try:
        status = app([it for it in arguments if it not in ANYWHERE], standalone_mode=False)
        # Some versions of typer turn the interrupt into its status themselves.
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        return status if isinstance(status, int) else DONE
    except InterruptedRunError as interruption:
        return _fail(str(interruption), INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
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


def _fail(message: str, status: int) -> int:
    from mindscore._util.text import LINE, shortened

    print(f"mindscore: {shortened(message, LINE, LINE // 3)}", file=sys.stderr)  # noqa: T201
    return status


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    _trace_hooks: Annotated[
        bool, typer.Option("--trace-hooks", help="Show each call of a plugin's hook, as a line.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        raise UsageError("which command? See mindscore --help.")


@app.command()
def demo(
    train: Annotated[
        bool,
        typer.Option("--train", help="Train on what was found, and score again: a few minutes."),
    ] = False,
) -> int:
    """Score a bundled conversation with the local model: all three flows, a throw-away store."""
    if train:
        from mindscore.cli.demo_train import run_training_demo

        return run_training_demo()
    from mindscore.cli.demo import run_demo

    return run_demo()


@app.command()
def score(
    transcript: Transcript,
    full: Full = False,
    finetune: Finetune = False,
    all_: All = False,
    memory: Memories = None,
    format_: Format = None,
    memories: MemoriesFile = None,
    select: Select = None,
    hold: Hold = False,
    resume: Resume = False,
    max_tokens: MaxTokens = None,
    no_self_test: Annotated[
        bool, typer.Option("--no-self-test", help="Score on a server that is not tested first.")
    ] = False,
    html: Html = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    json: Json = False,
) -> int:
    """Score the memories of a transcript."""
    from mindscore.cli.score import Request, run_score

    request = Request(
        transcript=transcript,
        command=command_of(full, finetune),
        only=tuple(memory or ()),
        format=format_,
        memories=memories,
        select=select,
        all_due=all_,
        hold=hold,
        resume=resume,
        max_tokens=max_tokens,
        self_test=not no_self_test,
        html=html,
        config_file=config_file,
        assignments=tuple(assignments or ()),
        json=json,
    )
    return run_score(request)


@app.command()
def plan(
    transcript: Transcript,
    full: Full = False,
    finetune: Finetune = False,
    all_: All = False,
    memory: Memories = None,
    format_: Format = None,
    memories: MemoriesFile = None,
    select: Select = None,
    hold: Hold = False,
    resume: Resume = False,
    max_tokens: MaxTokens = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    json: Json = False,
) -> int:
    """Say what scoring a transcript would cost: calls, tokens, and about how long."""
    from mindscore.cli.plan import run_plan
    from mindscore.cli.score import Request

    request = Request(
        transcript=transcript,
        command=command_of(full, finetune),
        only=tuple(memory or ()),
        format=format_,
        memories=memories,
        select=select,
        all_due=all_,
        hold=hold,
        resume=resume,
        max_tokens=max_tokens,
        self_test=False,
        html=None,
        config_file=config_file,
        assignments=tuple(assignments or ()),
        json=json,
    )
    return run_plan(request)


@app.command("list")
def list_(file: Transcript, format_: Format = None, json: Json = False) -> int:
    """List the conversations of a file, and the memories that are found in each."""
    from mindscore.cli.list import run_list

    return run_list(file, format_, json)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option("--host", help="Listen on this address; others than loopback need a key.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")
    ] = 8017,
    queue: Annotated[int, typer.Option("--queue", min=1, help="How many requests may wait.")] = 64,
    train: Annotated[
        bool, typer.Option("--train", help="Train adapters of the model, too: /v1/train.")
    ] = False,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
) -> int:
    """Serve the local model over HTTP, to other programs on this machine or a network."""
    from mindscore.cli.serve import ServeRequest, run_serve

    request = ServeRequest(host, port, queue, train, config_file, tuple(assignments or ()))
    return run_serve(request)


@app.command()
def review(
    transcript: Annotated[
        Path | None,
        typer.Argument(metavar="[TRANSCRIPT]", help="A conversation to score from the page."),
    ] = None,
    format_: Format = None,
    memories: MemoriesFile = None,
    select: Select = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 0,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
) -> int:
    """Serve a page, to this machine alone: what is kept, and the candidates to decide on."""
    from mindscore.cli.review import ReviewRequest, run_review

    request = ReviewRequest(
        transcript, format_, memories, select, port, config_file, tuple(assignments or ())
    )
    return run_review(request)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines, written whole.")],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="NAME", help="input_ids, prompt_completion, messages, preference."
        ),
    ] = None,
    unreviewed: Unreviewed = False,
    model: Model = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
) -> int:
    """Write the accepted candidates to a file that trainers load; nothing is marked."""
    from mindscore.cli.train import ExportRequest, run_export

    request = ExportRequest(file, format_, unreviewed, model, config_file, tuple(assignments or ()))
    return run_export(request)


@app.command()
def train(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")
    ] = False,
    unreviewed: Unreviewed = False,
    resend_unknown: Annotated[
        bool,
        typer.Option("--resend-unknown", help="Repeat sends whose outcome is not known."),
    ] = False,
    model: Model = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    json: Json = False,
) -> int:
    """Send the accepted candidates to the trainer, each once."""
    from mindscore.cli.train import TrainRequest, run_train

    request = TrainRequest(
        dry_run, unreviewed, resend_unknown, model, config_file, tuple(assignments or ()), json
    )
    return run_train(request)
