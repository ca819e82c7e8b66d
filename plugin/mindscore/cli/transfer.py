"""``mindscore store``: export, import and copy."""

from __future__ import annotations

import asyncio
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mindscore._util.errors import ConfigError, UsageError
from mindscore._util.text import count_of, printable
from mindscore.cli.options import ConfigOptions, Json, takes_options
from mindscore.cli.store import app, configured_model, one_model, open_store

__all__ = ["app"]

if TYPE_CHECKING:
    from mindscore.config.settings import StoreSettings
    from mindscore.store import Store
    from mindscore.store.file_tables import FileTable

Model = Annotated[str | None, typer.Option("--model", help="Model of the scores.")]

DAY_S = 24 * 3600.0


class EvidenceTable(StrEnum):
    """A table of evidence, or of what belongs to it."""

    EVIDENCE = "evidence"
    TEXTS = "texts"
    CONVERSATIONS = "conversations"
    PASSES = "passes"


class EvidenceFormat(StrEnum):
    """A format of a file of evidence."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


@app.command("import")
@takes_options
def import_(
    options: ConfigOptions,
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    model: Model = None,
) -> None:
    """Import memory scores, {key: score}, trained responses, [timestamp in ns, ...], or evidence.

    Evidence is what export --format wrote, of any table. Importing it twice changes nothing.
    """
    from mindscore.store.evidence_files import table_of
    from mindscore.store.store import read_exchange

    if (table := table_of(file)) is not None:
        if model is not None:
            raise UsageError("--model: evidence names its models")
        configuration, store = open_store(options)
        asyncio.run(_import_evidence(file, table, store, configuration.settings.store))
        return
    contents = read_exchange(file)
    configuration, store = open_store(options)
    if isinstance(contents, dict):
        model = model or asyncio.run(configured_model(configuration))
        asyncio.run(store.import_scores(contents, model))
        found = count_of(len(contents), "memory score")
        sys.stdout.write(f"imported {found} of model {printable(model)}\n")
    else:
        asyncio.run(store.import_trained(contents))
        sys.stdout.write(f"imported {count_of(len(contents), 'trained response')}\n")


async def _import_evidence(
    file: Path, table: FileTable, store: Store, settings: StoreSettings
) -> None:
    from mindscore.store.evidence_files import read_evidence

    count = old = 0
    oldest = time.time() - settings.retention_days * DAY_S if settings.retention_days else 0.0
    for batch in read_evidence(file, table):
        await table.add(store, batch)
        count += len(batch[table.when])
        old += sum(it < oldest for it in batch[table.when])
    sys.stdout.write(f"imported {count_of(count, 'row')} of {table.name}\n")
    if old:
        sys.stderr.write(
            f"mindscore: {count_of(old, 'row')} of it {'is' if old == 1 else 'are'} older than "
            f"store.retention_days = {settings.retention_days:g}: the next run removes "
            f"{'it' if old == 1 else 'them'}; 0 keeps everything\n"
        )


@app.command()
@takes_options
def export(
    options: ConfigOptions,
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    trained: Annotated[
        bool, typer.Option("--trained", help="Export the trained responses instead.")
    ] = False,
    file_format: Annotated[
        EvidenceFormat | None,
        typer.Option("--format", help="Export the evidence instead, in this format."),
    ] = None,
    table: Annotated[
        EvidenceTable | None,
        typer.Option("--table", help="With --format: export this; else the evidence itself."),
    ] = None,
    model: Model = None,
) -> None:
    """Export memory scores, {key: score}, the timestamps of trained responses, or the evidence."""
    from mindscore.store.store import write_exchange

    if trained and file_format is not None:
        raise UsageError("--trained and --format are two exports: choose one")
    if table is not None and file_format is None:
        raise UsageError("--table goes with --format: parquet, csv or jsonl")
    configuration, store = open_store(options)
    if file_format is not None:
        from mindscore.store.export import export_evidence
        from mindscore.store.file_tables import FILE_TABLES

        chosen_table = FILE_TABLES[table or EvidenceTable.EVIDENCE]
        if model is not None and not chosen_table.has_models:
            raise UsageError(f"--model: {chosen_table.name} are of no model")
        export = export_evidence(store, file, file_format.value, model, chosen_table)
        wrote = f"{count_of(asyncio.run(export), 'row')} of {chosen_table.name}"
    elif trained:
        stamps = asyncio.run(store.trained_timestamps())
        write_exchange(file, stamps)
        wrote = count_of(len(stamps), "trained response")
    else:
        found = asyncio.run(store.memories())
        models = {it.model for it in found}
        chosen = asyncio.run(one_model(models, model, configuration, "scores"))
        write_exchange(file, {it.key: it.score for it in found if it.model == chosen})
        wrote = count_of(sum(it.model == chosen for it in found), "score")
    sys.stdout.write(f"wrote {wrote} to {printable(str(file))}\n")


@app.command("copy")
@takes_options
def copy(
    options: ConfigOptions,
    to: Annotated[
        str, typer.Option("--to", metavar="URL", help="The store to copy to, as store.url.")
    ],
    json: Json = False,
) -> None:
    """Copy everything, of every namespace, to another store: SQLite or PostgreSQL.

    Of what is in both, the later one stays, so that a copy may be repeated.
    """
    from msgspec.structs import replace

    from mindscore.display.screen import write_json
    from mindscore.store.copying import copy_store

    source = options.load().settings.store
    try:
        target = replace(source, url=to)
        target.__post_init__()
    except ValueError as error:
        raise ConfigError(f"--to: {error}") from None
    found = asyncio.run(copy_store(source, target))
    if json:
        write_json(found)
    else:
        for it in found:
            left = f", {it.left_out} of them left out" if it.left_out else ""
            sys.stdout.write(f"{it.table}: {count_of(it.rows, 'row')}{left}\n")
    if left_out := sum(it.left_out for it in found):
        sys.stderr.write(
            f"mindscore: {count_of(left_out, 'row')} left out: damaged (see mindscore store check) "
            "or with a NUL character, which PostgreSQL cannot hold\n"
        )
        raise typer.Exit(1)
