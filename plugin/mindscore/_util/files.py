"""Write files whole and private, and read lines of JSON."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from mindscore._util.encodings import loads_leniently, to_utf8, without_lone_surrogates
from mindscore._util.errors import TranscriptError


def named_path(text: str) -> Path | None:
    """Return the absolute path that ``text`` names, or ``None`` where it is not written as one.

    A path is absolute, or begins with ``./``, ``../`` or ``~``: whatever else lies in the current
    folder, perhaps a stranger's, is never taken for what a setting names.
    """
    begins = ("./", "../", f".{os.sep}", f"..{os.sep}", "~")
    if text in (".", "..") or text.startswith(begins) or Path(text).is_absolute():
        return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100 - keeps links
    return None


def make_folder(folder: Path) -> Sequence[Path]:
    """Make ``folder`` and its missing parents, private; return those made, outermost first.

    Raises:
        OSError: it cannot be made.
    """
    missing = [it for it in (folder, *folder.parents) if not it.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
    return missing[::-1]


def make_file(file: Path) -> None:
    """Make an empty, private ``file`` and its folder; leave one that exists as it is.

    Raises:
        OSError: it cannot be made.
    """
    make_folder(file.parent)
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def sync_folder(folder: Path) -> None:
    """Have new and replaced names in ``folder`` survive a loss of power.

    Raises:
        OSError: the disk does not confirm it.
    """
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write private files to folders that exist, each whole or not at all.

    Every content is on the disk before the first file is replaced, in the mapping's order.

    Raises:
        OSError: one cannot be written, or may not survive a loss of power.
    """
    unfinished: dict[Path, Path] = {}
    try:
        for file, content in contents.items():
            opened, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
            unfinished[file] = Path(name)
            with os.fdopen(opened, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        for file, temporary in unfinished.items():
            temporary.replace(file)
    finally:
        for temporary in unfinished.values():
            with suppress(OSError):
                temporary.unlink()
    for folder in {file.parent for file in contents}:
        sync_folder(folder)


@contextmanager
def whole_file(file: Path) -> Iterator[BinaryIO]:
    """Yield a private file to write to, which becomes ``file`` when the block succeeds.

    Raises:
        OSError: it cannot be written, or may not survive a loss of power.
    """
    opened, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(opened, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(file)
    finally:
        with suppress(OSError):
            Path(name).unlink()
    sync_folder(file.parent)


def write_whole(file: Path, content: bytes) -> None:
    """Write one file as ``write_files`` does, and make its folder if it is missing.

    Raises:
        OSError: it cannot be written, or may not survive a loss of power.
    """
    made = make_folder(file.parent)
    write_files({file: content})
    for folder in made:
        sync_folder(folder.parent)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty private folder that becomes ``folder`` when the block succeeds.

    Raises:
        OSError: it cannot be made, or ``folder`` exists and is not empty.
    """
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
    try:
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


STANDARD_INPUT = Path("-")
"""The name of standard input among files."""


def read_content(file: Path) -> bytes:
    """Return the content of ``file``, or of standard input for ``-``, as UTF-8.

    It is decompressed if it is gzip or zstd, and has no byte order mark.

    Raises:
        TranscriptError: the file cannot be read.
    """
    try:
        content = sys.stdin.buffer.read() if file == STANDARD_INPUT else file.read_bytes()
        return to_utf8(content)
    except OSError as error:
        raise unreadable(file, error) from None
    except ValueError as error:
        raise TranscriptError(f"{file}: {error}") from None


def unreadable(file: Path, error: OSError) -> TranscriptError:
    """Return the error that says why ``file`` cannot be read."""
    return TranscriptError(f"{file}: cannot be read: {error.strerror or error}")


def numbered_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not blank, with its number from 1."""
    for number, line in enumerate(io.BytesIO(content), start=1):
        if line.strip():
            yield number, line.rstrip(b"\n")


_LENIENT = re.compile(rb"NaN|Infinity|[0-9][eE]\+?[0-9]{3}")
"""What may be in a value that Python's own ``json`` reads, but msgspec refuses."""


def decode(raw: bytes, kind: Any = Any) -> Any:
    """Return the JSON value in ``raw``, as ``kind``; if that is any, also ``NaN`` and ``Infinity``.

    Raises:
        ValueError: ``raw`` is not JSON; the text says why.
        msgspec.ValidationError: the value is not of that kind.
    """
    try:
        return _decode(raw, kind)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        raise ValueError(f"is not valid JSON: {error}") from None


def decode_repaired(raw: bytes) -> tuple[Any, int]:
    """Return the JSON value in ``raw``, and how many lone surrogates are replaced by U+FFFD in it.

    Raises:
        ValueError: as ``decode``.
    """
    try:
        return decode(raw), 0
    except ValueError:
        repaired, number = without_lone_surrogates(raw)
        if not number:
            raise
        return decode(repaired), number


def _decode(raw: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError:
        if kind is not Any or not _LENIENT.search(raw):
            raise
        with suppress(ValueError):
            return loads_leniently(raw)
        raise
