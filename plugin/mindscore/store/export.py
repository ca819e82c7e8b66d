"""Evidence, and what belongs to it, in files: Parquet, CSV and JSON Lines, batch by batch."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from mindscore._util.errors import UsageError
from mindscore._util.files import whole_file
from mindscore.store.file_tables import EVIDENCE, FileTable
from mindscore.store.pages import Columns
from mindscore.store.store import Store, require_regular

ExportFormat = Literal["parquet", "csv", "jsonl"]

ROW_GROUP_ROWS = 100_000
"""Rows of a Parquet row group: what is held in memory at a time."""

Write = Callable[[Columns], object]


async def export_evidence(
    store: Store,
    file: Path,
    file_format: ExportFormat,
    model: str | None = None,
    table: FileTable = EVIDENCE,
) -> int:
    """Write a table, of ``model`` or of all, to ``file``; return how many rows.

    The file is private, and is written whole or not at all. Its columns are those of ``table``.

    Raises:
        StoreError: the store cannot be read.
        UsageError: the file cannot be written, or pyarrow is not installed.
    """
    require_regular(file)
    writer = _WRITERS[file_format]
    batches = table.batches(store, model, ROW_GROUP_ROWS)
    try:
        with whole_file(file) as stream, writer(stream, table) as write:
            return await _write_all(batches, write)
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror or error}") from None


async def _write_all(batches: AsyncIterator[Columns], write: Write) -> int:
    count = 0
    async for batch in batches:
        write(batch)
        count += len(next(iter(batch.values())))
    return count


@contextmanager
def _csv(stream: BinaryIO, table: FileTable) -> Iterator[Write]:
    """Write a line of names, then the rows; what is not known is empty."""
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(table.columns)
    try:
        yield lambda batch: writer.writerows(zip(*batch.values(), strict=True))
    finally:
        # Flushed, and left open to whoever has opened it.
        text.detach()


@contextmanager
def _jsonl(stream: BinaryIO, table: FileTable) -> Iterator[Write]:
    encoder = msgspec.json.Encoder()
    yield lambda batch: stream.write(encoder.encode_lines(list(table.rows_of(batch))))


@contextmanager
def _parquet(stream: BinaryIO, table: FileTable) -> Iterator[Write]:
    pyarrow, parquet = import_pyarrow()
    schema = _parquet_schema(table)
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        yield lambda batch: writer.write_table(pyarrow.table(dict(batch), schema=schema))


_WRITERS = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}


def _parquet_schema(table: FileTable) -> Any:
    """Return the ``pyarrow.Schema`` of a table."""
    pyarrow, _ = import_pyarrow()
    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    return pyarrow.schema(
        [
            # In row groups, a text that is there often is written once.
            pyarrow.field(name, types[table.type_of(name)], nullable=table.is_optional(name))
            for name in table.columns
        ]
    )


def import_pyarrow() -> tuple[Any, Any]:
    """Return ``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"Parquet needs pyarrow ({error}); install it with: pip install 'mindscore[archive]'"
        ) from None
    return pyarrow, pyarrow.parquet
