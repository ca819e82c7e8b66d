"""The original's two JSON files: memory scores, and timestamps of trained responses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mindscore._util.errors import UsageError
from mindscore._util.files import write_files
from mindscore._util.text import harmless_json

Timestamp = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Exchange = dict[str, float] | list[Timestamp]


def read_exchange(file: Path) -> dict[str, float] | list[int]:
    """Read memory scores, ``{key: score}``, or trained timestamps in nanoseconds.

    Raises:
        UsageError: the file cannot be read or is neither, or two scores have the same key.
    """
    try:
        # Reading a pipe would wait for somebody to write.
        if file.exists() and not file.is_file():
            raise UsageError(f"{file}: cannot be read: it is no regular file")
        raw = file.read_bytes()
        contents: Exchange = msgspec.json.decode(raw, type=Exchange)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file}: expected JSON, {{key: score}} or [timestamp in ns, …]: {error}"
        ) from None
    if isinstance(contents, dict):
        _require_unique(file, raw, contents)
    return contents


def write_exchange(file: Path, contents: dict[str, float] | list[int]) -> None:
    """Write the file whole or not at all, for its owner alone.

    Raises:
        UsageError: it cannot be written.
    """
    if file.exists() and not file.is_file():
        raise UsageError(f"{file}: cannot be written: it is no regular file")
    try:
        write_files({file: harmless_json(msgspec.json.encode(contents)) + b"\n"})
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror or error}") from None


def _require_unique(file: Path, raw: bytes, contents: dict[str, float]) -> None:
    pairs: list[tuple[str, float]] = json.loads(raw, object_pairs_hook=list, parse_int=float)
    for key, score in pairs:
        if contents[key] != score:
            raise UsageError(f"{file}: there are two scores of {key!r}, {score} and another")
