"""The original's two JSON files: memory scores, and timestamps of trained responses."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mindscore.errors import UsageError

Timestamp = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Exchange = dict[str, float] | list[Timestamp]


def read_exchange(file: Path) -> dict[str, float] | list[int]:
    """Memory scores, ``{key: score}``, or trained timestamps in nanoseconds.

    Raises:
        UsageError: the file cannot be read or is neither.
    """
    try:
        contents: Exchange = msgspec.json.decode(file.read_bytes(), type=Exchange)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file}: expected JSON, {{key: score}} or [timestamp in ns, …]: {error}"
        ) from None
    return contents


def write_exchange(file: Path, contents: dict[str, float] | list[int]) -> None:
    """Write the file whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    if file.is_dir():
        raise UsageError(f"{file}: cannot be written: it is a folder")
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(msgspec.json.encode(contents) + b"\n")
        unfinished.replace(file)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise UsageError(f"{file}: cannot be written: {error.strerror or error}") from None
