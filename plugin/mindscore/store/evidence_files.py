"""Files of evidence, and of what belongs to it, as ``export`` writes them, read batch by batch."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from mindscore._util.errors import UsageError
from mindscore.store.evidence import BATCH_ROWS
from mindscore.store.export import import_pyarrow
from mindscore.store.file_tables import EVIDENCE, FILE_TABLES, FileTable
from mindscore.store.pages import Columns

PARQUET = b"PAR1"
"""The bytes that a Parquet file begins with."""

FIRST_BYTES = 1 << 20
"""Length of a first line that is looked at."""

FIELD_CHARACTERS = 2**31 - 1
"""Length of a field of CSV that is read: a memory's text may be long."""


def holds_evidence(file: Path) -> bool:
    """Return whether ``file`` is one that ``table_of`` knows.

    Raises:
        UsageError: it cannot be read.
    """
    return table_of(file) is not None


def table_of(file: Path) -> FileTable | None:
    """Return the table that ``file`` is of, by its columns; ``None``: it is none of these.

    A Parquet file of other columns is taken for evidence.

    Raises:
        UsageError: it cannot be read.
    """
    # Reading a pipe would wait for somebody to write.
    if not file.is_file():
        return None
    try:
        with file.open("rb") as stream:
            if stream.read(len(PARQUET)) == PARQUET:
                return _best(_parquet_names(file)) or EVIDENCE
            stream.seek(0)
            first = stream.readline(FIRST_BYTES)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from None
    return _best(_json_names(first) or _csv_names(first))


def _best(names: Sequence[str]) -> FileTable | None:
    return next((it for it in FILE_TABLES.values() if it.marks <= set(names)), None)


def _parquet_names(file: Path) -> list[str]:
    pyarrow, parquet = import_pyarrow()
    try:
        names: list[str] = parquet.read_schema(file).names
    except pyarrow.ArrowInvalid:
        # Reading the rows says what is wrong.
        return []
    return names


def _json_names(line: bytes) -> list[str]:
    try:
        return list(msgspec.json.decode(line, type=dict[str, Any]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []


def _csv_names(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")]), [])
    except (csv.Error, UnicodeDecodeError):
        return []


def read_evidence(file: Path, table: FileTable = EVIDENCE) -> Iterator[Columns]:
    """Yield the rows of a file of ``table`` in batches, with all columns.

    Raises:
        UsageError: it cannot be read, or a row is none of the table.
    """
    try:
        with file.open("rb") as stream:
            first = stream.readline(FIRST_BYTES)
        read = _parquet if first.startswith(PARQUET) else _csv
        if not first.startswith(PARQUET) and not table.marks <= set(_csv_names(first)):
            read = _jsonl
        yield from read(file, table)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from None


def _jsonl(file: Path, table: FileTable) -> Iterator[Columns]:
    decoder = msgspec.json.Decoder(table.row)

    def rows() -> Iterator[Any]:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    yield decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    raise UsageError(f"{file}: line {number} is no {table.noun}: {error}") from None

    found = rows()
    while batch := list(itertools.islice(found, BATCH_ROWS)):
        yield {name: [getattr(it, name) for it in batch] for name in table.columns}


def _csv(file: Path, table: FileTable) -> Iterator[Columns]:
    with file.open(encoding="utf-8-sig", newline="") as stream, _long_fields():
        rows = csv.reader(stream)
        try:
            names = next(rows)
            at = {name: names.index(name) for name in _required(file, table, names)}
            while batch := list(itertools.islice(rows, BATCH_ROWS)):
                if short := next((row for row in batch if row and len(row) != len(names)), None):
                    raise UsageError(
                        f"{file}: a row up to line {rows.line_num} has {len(short)} fields, not "
                        f"{len(names)}"
                    )
                its = [row for row in batch if row]
                yield table.checked(
                    {name: _parsed(table, name, [row[at[name]] for row in its]) for name in at}
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: is no CSV that can be read: {error}") from None
        except msgspec.ValidationError as error:
            where = f"a row up to line {rows.line_num}"
            raise UsageError(f"{file}: {where} is no {table.noun}: {error}") from None


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(FIELD_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parsed(table: FileTable, name: str, texts: Sequence[str]) -> list[Any]:
    """Return the values of a column of CSV; one that is no number stays a text."""
    if table.type_of(name) is str:
        return [None if not it and table.is_optional(name) else it for it in texts]
    return _whole(table, name, [None if not it else _number(it) for it in texts])


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _parquet(file: Path, table: FileTable) -> Iterator[Columns]:
    pyarrow, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(file) as opened:
            names = list(_required(file, table, opened.schema_arrow.names))
            for batch in opened.iter_batches(BATCH_ROWS, columns=names):
                values = {name: batch.column(name).to_pylist() for name in names}
                yield table.checked({it: _whole(table, it, values[it]) for it in names})
    except pyarrow.ArrowInvalid as error:
        raise UsageError(f"{file}: is no Parquet file that can be read: {error}") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{file}: a row is no {table.noun}: {error}") from None


def _required(file: Path, table: FileTable, names: Sequence[str]) -> Sequence[str]:
    """Return the columns of ``table``, all of which must be among ``names``."""
    for name in table.columns:
        if name not in names:
            raise UsageError(f"{file}: has no column {name!r}: it is no {table.noun}")
    return table.columns


def _whole(table: FileTable, name: str, values: list[Any]) -> list[Any]:
    """Return a column; pandas has NaN for what is not there, and floats beside it."""
    if not table.is_optional(name):
        return values
    found = [None if value != value else value for value in values]
    if table.type_of(name) is int:
        return [int(it) if isinstance(it, float) and it.is_integer() else it for it in found]
    return found
