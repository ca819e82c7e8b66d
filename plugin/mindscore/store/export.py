"""Evidence in files: Parquet, CSV and JSON Lines, written batch by batch."""

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
from mindscore.store.arrays import TEXTS
from mindscore.store.evidence import COLUMNS, KINDS, Columns, rows_of
from mindscore.store.store import Store, require_regular

ExportFormat = Literal["parquet", "csv", "jsonl"]

ROW_GROUP_ROWS = 100_000
"""Rows of a Parquet row group: what is held in memory at a time."""

Write = Callable[[Columns], object]


async def export_evidence(
    store: Store, file: Path, file_format: ExportFormat, model: str | None = None
) -> int:
    """Write the evidence, of ``model`` or of all, to ``file``; return how many rows.

    The file is private, and is written whole or not at all. Its columns are those of ``Evidence``.

    Raises:
        StoreError: the store cannot be read.
        UsageError: the file cannot be written, or pyarrow is not installed.
    """
    require_regular(file)
    writer = _WRITERS[file_format]
    batches = store.evidence(model, batch_rows=ROW_GROUP_ROWS)
    try:
        with whole_file(file) as stream, writer(stream) as write:
            return await _write_all(batches, write)
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror or error}") from None


async def _write_all(batches: AsyncIterator[Columns], write: Write) -> int:
    count = 0
    async for batch in batches:
        write(batch)
        count += len(batch[COLUMNS[0]])
    return count


@contextmanager
def _csv(stream: BinaryIO) -> Iterator[Write]:
    """Write a line of names, then the rows; what is not known is empty."""
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    try:
        yield lambda batch: writer.writerows(zip(*batch.values(), strict=True))
    finally:
        # Flushed, and left open to whoever has opened it.
        text.detach()


@contextmanager
def _jsonl(stream: BinaryIO) -> Iterator[Write]:
    encoder = msgspec.json.Encoder()
    yield lambda batch: stream.write(encoder.encode_lines(list(rows_of(batch))))


@contextmanager
def _parquet(stream: BinaryIO) -> Iterator[Write]:
    pyarrow, parquet = import_pyarrow()
    schema = parquet_schema()
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        yield lambda batch: writer.write_table(pyarrow.table(dict(batch), schema=schema))


_WRITERS = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}


def parquet_schema() -> Any:
    """Return the ``pyarrow.Schema`` of evidence."""
    pyarrow, _ = import_pyarrow()
    return pyarrow.schema(
        [
            # In row groups, a text that is there often is written once.
            pyarrow.field(name, _arrow_type(pyarrow, name), nullable=_is_optional(name))
            for name in COLUMNS
        ]
    )


def _arrow_type(pyarrow: Any, name: str) -> Any:
    if name in TEXTS:
        return pyarrow.string()
    return pyarrow.int64() if name in ("entry_idx", "tokens") else pyarrow.float64()


def _is_optional(name: str) -> bool:
    return KINDS[name] in (float | None, int | None)


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
