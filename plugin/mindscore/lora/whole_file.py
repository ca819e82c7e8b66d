"""Files that are there, whole, even after a loss of power, or are as they were."""

from __future__ import annotations

import os
from pathlib import Path

from mindscore.private_files import keep_names, make_file


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
