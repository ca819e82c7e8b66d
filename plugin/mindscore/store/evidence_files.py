"""Files of evidence, as ``export`` writes them, read batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mindscore._util.errors import UsageError
from mindscore.store.evidence import BATCH_ROWS, columns_of
from mindscore.store.export import import_pyarrow
from mindscore.store.pages import COLUMNS, KINDS, Columns, Evidence, checked_columns

PARQUET = b"PAR1"
"""The bytes that a Parquet file begins with."""


def holds_evidence(file: Path) -> bool:
    """Return whether ``file`` is one of evidence: Parquet, or JSON Lines whose first line is a row.

    Raises:
        UsageError: it cannot be read.
    """
    # Reading a pipe would wait for somebody to write.
    if not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            if stream.read(len(PARQUET)) == PARQUET:
                return True
            stream.seek(0)
            first = stream.readline(1 << 20)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from None
    try:
        row = msgspec.json.decode(first, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return {"key", "node_id", "mode"} <= row.keys()


def read_evidence(file: Path) -> Iterator[Columns]:
    """Yield the rows of a file of evidence in batches, with all columns.

    Raises:
        UsageError: it cannot be read, or a row is no evidence.
    """
    try:
        with file.open("rb") as stream:
            is_parquet = stream.read(len(PARQUET)) == PARQUET
        yield from _parquet(file) if is_parquet else _jsonl(file)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from None


def _jsonl(file: Path) -> Iterator[Columns]:
    decoder = msgspec.json.Decoder(Evidence)

    def rows() -> Iterator[Evidence]:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    yield decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    raise UsageError(f"{file}: line {number} is no evidence: {error}") from None

    found = rows()
    while batch := list(itertools.islice(found, BATCH_ROWS)):
        yield columns_of(batch)


def _parquet(file: Path) -> Iterator[Columns]:
    pyarrow, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(file) as opened:
            missing = [name for name in COLUMNS if name not in opened.schema_arrow.names]
            if missing:
                raise UsageError(f"{file}: has no column {missing[0]!r}: it is no evidence")
            for batch in opened.iter_batches(BATCH_ROWS, columns=list(COLUMNS)):
                yield checked_columns({name: _values(batch, name) for name in COLUMNS})
    except pyarrow.ArrowInvalid as error:
        raise UsageError(f"{file}: is no Parquet file that can be read: {error}") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{file}: a row is no evidence: {error}") from None


def _values(batch: Any, name: str) -> list[Any]:
    """Return a column; pandas has NaN for what is not there, and floats beside it."""
    values: list[Any] = batch.column(name).to_pylist()
    if KINDS[name] not in (float | None, int | None):
        return values
    found = [None if value != value else value for value in values]
    if KINDS[name] == int | None:
        return [int(it) if isinstance(it, float) and it.is_integer() else it for it in found]
    return found
