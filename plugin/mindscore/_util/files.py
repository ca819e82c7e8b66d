"""Write files whole and for the user alone."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make ``folder``, and what is missing above it; one that is there is left as it is.

    Raises:
        OSError: it cannot be made.
    """
    missing = [it for it in (folder, *folder.parents) if not it.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


def make_file(file: Path) -> None:
    """Make an empty ``file`` and its folder; one that is there is left as it is.

    Raises:
        OSError: it cannot be made.
    """
    make_folder(file.parent)
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def keep_names(folder: Path) -> None:
    """Have the names in ``folder``, new and replaced ones, outlive a loss of power.

    Raises:
        OSError: the disk does not say that they will.
    """
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


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
        keep_names(folder)
