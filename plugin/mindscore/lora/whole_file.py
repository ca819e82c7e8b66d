"""Files that are there, whole, even after a loss of power, or are as they were."""

from __future__ import annotations

import os
from pathlib import Path

from mindscore.private_files import make_file


def write_whole(file: Path, content: bytes) -> None:
    """Write ``content`` to ``file``, for its owner alone; its folder is made where there is none.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = file.with_name(f"{file.name}.new")
    make_file(unfinished)
    with unfinished.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(file)
    for folder in (file.parent, file.parent.parent):
        _keep_names(folder)


def _keep_names(folder: Path) -> None:
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
