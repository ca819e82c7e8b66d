"""Read JSON and JSON Lines that other programs wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mindscore._util.errors import TranscriptError


def read_content(file: Path) -> bytes:
    """Return the content of ``file`` without a byte order mark.

    Raises:
        TranscriptError: the file cannot be read.
    """
    try:
        return file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise unreadable(file, error) from None


def unreadable(file: Path, error: OSError) -> TranscriptError:
    """Return the error that says why ``file`` cannot be read."""
    return TranscriptError(f"{file}: cannot be read: {error.strerror or error}")


def numbered_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not blank, with its number from 1."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            yield number, line


def decode(raw: bytes, kind: Any = Any) -> Any:
    """Return the JSON value in ``raw``, as ``kind``.

    Raises:
        ValueError: ``raw`` is not JSON; the text says why.
        msgspec.ValidationError: the value is not of that kind.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
