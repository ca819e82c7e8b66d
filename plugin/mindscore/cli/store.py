"""``mindscore store``: look at what is stored, and forget; ``transfer`` has the rest."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer

from mindscore._util.errors import ConfigError, UsageError
from mindscore._util.text import count_of, printable
from mindscore.cli.options import ConfigOptions, Json, takes_options

if TYPE_CHECKING:
    from mindscore.config.file import Configuration
    from mindscore.store import Send, Sends, Store, StoredMemory

app = typer.Typer(help="Look at what is stored, forget, import and export.")


@app.command("list")
@takes_options
def list_(options: ConfigOptions, json: Json = False) -> None:
    """List the memories of the namespace, model by model, the heaviest first."""
    from mindscore.display.screen import write_json

    configuration, store = open_store(options)
    found = sorted(asyncio.run(store.memories()), key=lambda it: it.model)
    if json:
        names = ("key", "model", "score", "weight", "last_scored", "count")
        write_json([{name: getattr(it, name) for name in names} for it in found])
    else:
        _show(found)
    if unknown := asyncio.run(_sends(configuration).unknown()):
        sys.stderr.write(
            f"mindscore: whether the trainer accepted {sum(it.responses for it in unknown)} "
            "responses is not known: see mindscore store sent\n"
        )


@app.command()
@takes_options
def sent(options: ConfigOptions, json: Json = False) -> None:
    """List what was sent to a trainer with an unknown outcome."""
    from mindscore.display.screen import write_json

    configuration, _ = open_store(options)
    found = asyncio.run(_sends(configuration).unknown())
    if json:
        write_json(found)
    else:
        _show_sent(found)


@app.command()
@takes_options
def settle(
    options: ConfigOptions,
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="Key as store sent shows it, or with --not-trained a trainer's failed job.",
        ),
    ],
    trained: Annotated[
        bool | None,
        typer.Option("--trained/--not-trained", help="Whether the trainer accepted it."),
    ] = None,
) -> None:
    """Record the outcome of a send, or of a trainer's job: trained or not.

    Responses that are not trained may be sent again.
    """
    if trained is None:
        raise UsageError("did the trainer accept it? Say --trained or --not-trained")
    configuration, store = open_store(options)
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
    sys.stdout.write(f"{count_of(settled, 'response')} {became}\n")


@app.command()
@takes_options
def check(options: ConfigOptions, json: Json = False) -> None:
    """List the damaged records of the store: exit status 1 if there are any."""
    from mindscore.display.screen import write_json
    from mindscore.store import Records

    configuration, _ = open_store(options)
    found = asyncio.run(Records(configuration.settings.store).damaged())
    if json:
        write_json(found)
    else:
        sys.stdout.writelines(f"{it.id}  {it.reason}\n" for it in found)
    if found:
        raise typer.Exit(1)
    if not json:
        sys.stdout.write("No record is damaged.\n")


@app.command()
@takes_options
def drop(
    options: ConfigOptions, ids: Annotated[list[str], typer.Argument(metavar="ID...")]
) -> None:
    """Remove damaged records, by their ids as store check shows them."""
    from mindscore.store import Records

    configuration, _ = open_store(options)
    gone = asyncio.run(Records(configuration.settings.store).drop(ids))
    sys.stdout.write(f"removed {count_of(gone, 'damaged record')}\n")


@app.command()
@takes_options
def forget(options: ConfigOptions, key: Annotated[str, typer.Argument(metavar="KEY")]) -> None:
    """Remove a memory's scores and matrix cells, of every model."""
    _, store = open_store(options)
    gone = asyncio.run(store.forget(key))
    if not gone:
        raise UsageError(f"nothing is kept of a memory {key!r}; see mindscore store list")
    sys.stdout.write(f"removed {count_of(gone, 'row')}\n")


async def configured_model(configuration: Configuration) -> str:
    """Return the model's name as the configured scorer gives it, and the recorder stores it."""
    from mindhooks import Registry
    from mindhooks.testing import StubMind
    from mindscore.session.session import model_name

    try:
        async with Registry(StubMind(), configuration.tables) as registry:
            return await model_name(registry)
    except ConfigError:
        # A scorer that cannot be built, as one without an address, still has its model's name.
        return configuration.settings.server.model


async def one_model(
    models: Collection[str], asked: str | None, configuration: Configuration, what: str
) -> str | None:
    """Return the model asked for, else the only one, else the configured one; ``None`` for none.

    ``what`` names in errors what is stored of ``models``.

    Raises:
        UsageError: nothing of that model is stored, or it must be said which.
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


def open_store(options: ConfigOptions) -> tuple[Configuration, Store]:
    from mindscore.store import Store

    configuration = options.load()
    return configuration, Store(configuration.settings.store)


def _sends(configuration: Configuration) -> Sends:
    from mindscore.store import Sends

    return Sends(configuration.settings.store)


def _show(found: list[StoredMemory]) -> None:
    """Print a line for each memory, model by model: what two models say is not to be compared."""
    if not found:
        sys.stdout.write("Nothing is kept yet in this namespace.\n")
        return
    from itertools import zip_longest

    from rich.cells import cell_len, chop_cells, set_cell_size

    from mindscore.display.screen import new_console

    titles = ("memory", "model", "weight", "last", "times", "last scored")
    lines = [titles, *map(_columns, found)]
    # Not rich's table: it takes minutes for a hundred thousand memories.
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    free = new_console().width - 2 * len(titles) - sum(widths[2:])
    room = max(2 * NARROWEST, free)
    # A time goes on below itself, too.
    widths[5] = max(NARROWEST, widths[5] - (room - free))
    widths[1] = min(widths[1], max(NARROWEST, room - widths[0], room // 2))
    widths[0] = min(widths[0], room - widths[1])
    model = None
    for line in lines:
        if line is not titles and line[1] != model:
            sys.stdout.write("\n" if model is not None else "")
            model = line[1]
        # A long name goes on below itself.
        folded = [chop_cells(it, width) for it, width in zip(line, widths, strict=True)]
        for part in zip_longest(*folded, fillvalue=""):
            cells = [
                set_cell_size(cell, width) if at in TEXTS else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(part, widths, strict=True))
            ]
            sys.stdout.write(f" {'  '.join(cells).rstrip()}\n")


NARROWEST = 8
"""Columns of a screen that a name has at least."""

TEXTS = (0, 1, 5)
"""Columns that begin at the left."""


def _columns(memory: StoredMemory) -> tuple[str, ...]:
    stamp = memory.last_scored
    return (
        printable(memory.key),
        printable(memory.model),
        f"{memory.weight:.2f}",
        f"{memory.score:.2f}",
        str(memory.count),
        "imported" if stamp is None else _local_time(stamp),
    )


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
