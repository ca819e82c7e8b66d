"""``mindscore store``: what is kept, and the original's two JSON files in and out."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mindscore._util.errors import UsageError
from mindscore._util.text import printable
from mindscore.cli.options import Assignments, ConfigFile, Json

if TYPE_CHECKING:
    from mindscore.config.file import Configuration
    from mindscore.store import Send, Sends, Store, StoredMemory

app = typer.Typer(help="Look at what is kept, forget some of it, exchange it.")

Model = Annotated[
    str | None, typer.Option("--model", help="The model that the scores are from or for.")
]


@app.command("list")
def list_(
    config_file: ConfigFile = None, assignments: Assignments = None, json: Json = False
) -> None:
    """List the memories of the namespace, the heaviest first."""
    from mindscore.display.screen import write_json

    configuration, store = _open(config_file, assignments)
    found = asyncio.run(store.memories())
    if json:
        write_json(found)
    else:
        _show(found)
    if unknown := asyncio.run(_sends(configuration).unknown()):
        sys.stderr.write(
            f"mindscore: whether the trainer accepted {sum(it.responses for it in unknown)} "
            "responses is not known: see mindscore store sent\n"
        )


@app.command()
def sent(
    config_file: ConfigFile = None, assignments: Assignments = None, json: Json = False
) -> None:
    """List what was sent to a trainer and may have been accepted: nobody knows."""
    from mindscore.display.screen import write_json

    configuration, _ = _open(config_file, assignments)
    found = asyncio.run(_sends(configuration).unknown())
    if json:
        write_json(found)
    else:
        _show_sent(found)


@app.command()
def settle(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="As store sent shows it; with --not-trained also a trainer's job that failed.",
        ),
    ],
    trained: Annotated[
        bool | None,
        typer.Option("--trained/--not-trained", help="Whether the trainer accepted it."),
    ] = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
) -> None:
    """Say what became of a send, or of a trainer's job: its responses are trained, or are not.

    Those that are not trained may be sent again.
    """
    if trained is None:
        raise UsageError("did the trainer accept it? Say --trained or --not-trained")
    configuration, store = _open(config_file, assignments)
    sends = _sends(configuration)

    async def run() -> int:
        send = next((it for it in await sends.unknown() if it.key == key), None)
        if send is None:
            return 0 if trained else await store.unmark_trained(key)
        if not trained:
            return await sends.release(key)
        responses = [it.candidate for it in await sends.samples(key)]
        marks = [(it.timestamp_ns, it.continuation_ids) for it in responses]
        await store.mark_trained(marks, None, send.sink)
        return len(marks)

    settled = asyncio.run(run())
    if not settled:
        nor = "" if trained else ", and no response is marked as trained by such a job"
        raise UsageError(f"no send {key!r} waits to be settled{nor}; see mindscore store sent")
    became = "marked as trained" if trained else "not trained: they may be sent again"
    sys.stdout.write(f"{settled} responses {became}\n")


@app.command()
def forget(
    key: Annotated[str, typer.Argument(metavar="KEY")],
    config_file: ConfigFile = None,
    assignments: Assignments = None,
) -> None:
    """Remove a memory's scores and matrix cells, of every model."""
    _, store = _open(config_file, assignments)
    gone = asyncio.run(store.forget(key))
    if not gone:
        raise UsageError(f"nothing is kept of a memory {key!r}; see mindscore store list")
    sys.stdout.write(f"removed {gone} rows\n")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    model: Model = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
) -> None:
    """Take over memory scores, {key: score}, or trained responses, [timestamp in ns, ...]."""
    from mindscore.cli.score import configured_model
    from mindscore.store.exchange import read_exchange

    contents = read_exchange(file)
    configuration, store = _open(config_file, assignments)
    if isinstance(contents, dict):
        model = model or asyncio.run(configured_model(configuration))
        asyncio.run(store.import_scores(contents, model))
        sys.stdout.write(f"imported {len(contents)} memory scores of model {printable(model)}\n")
    else:
        asyncio.run(store.import_trained(contents))
        sys.stdout.write(f"imported {len(contents)} trained responses\n")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    trained: Annotated[
        bool, typer.Option("--trained", help="The trained responses instead of the scores.")
    ] = False,
    model: Model = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
) -> None:
    """Write memory scores, {key: score}, or with --trained the trained responses' timestamps."""
    from mindscore.cli.score import one_model
    from mindscore.store.exchange import write_exchange

    configuration, store = _open(config_file, assignments)
    if trained:
        stamps = asyncio.run(store.trained_timestamps())
        write_exchange(file, stamps)
        sys.stdout.write(f"wrote {len(stamps)} trained responses to {printable(str(file))}\n")
        return
    found = asyncio.run(store.memories())
    models = {it.model for it in found}
    chosen = asyncio.run(one_model(models, model, configuration, "scores"))
    write_exchange(file, {it.key: it.score for it in found if it.model == chosen})
    sys.stdout.write(
        f"wrote {sum(it.model == chosen for it in found)} scores to {printable(str(file))}\n"
    )


def _open(config_file: Path | None, assignments: list[str] | None) -> tuple[Configuration, Store]:
    from mindscore.config.file import load_configuration
    from mindscore.store import Store

    configuration = load_configuration(config_file, assignments or ())
    return configuration, Store(configuration.settings.store)


def _sends(configuration: Configuration) -> Sends:
    from mindscore.store import Sends

    return Sends(configuration.settings.store)


def _show(found: list[StoredMemory]) -> None:
    from rich.table import Table

    from mindscore.display.screen import new_console

    table = Table(box=None)
    for title in ("memory", "model"):
        table.add_column(title, overflow="fold")
    for title in ("weight", "last", "times"):
        table.add_column(title, justify="right")
    table.add_column("last scored")
    for memory in found:
        stamp = memory.last_scored
        table.add_row(
            printable(memory.key),
            printable(memory.model),
            f"{memory.weight:.2f}",
            f"{memory.score:.2f}",
            str(memory.count),
            "imported" if stamp is None else _local_time(stamp),
        )
    console = new_console()
    console.print(table if found else "Nothing is kept yet in this namespace.")


def _show_sent(found: list[Send]) -> None:
    from rich.table import Table

    from mindscore.display.screen import new_console

    table = Table(box=None)
    table.add_column("key", overflow="fold")
    table.add_column("sink", overflow="fold")
    table.add_column("responses", justify="right")
    table.add_column("since")
    for send in found:
        table.add_row(send.key, printable(send.sink), str(send.responses), _local_time(send.since))
    console = new_console()
    console.print(table if found else "What became of everything sent to a trainer is known.")


def _local_time(seconds: float) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
