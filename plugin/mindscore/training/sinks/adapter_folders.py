"""The folders of the ``peft`` sink's hand-offs: whose adapters stay, and whose are removed."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from pathlib import Path

from mindscore.training.jobs import TrainingJob
from mindscore.training.lora.job import ADAPTER, JOB, LOG

STATE = "trained.json"
"""In the folder of a hand-off: the job as it ended, written when it has passed its guard."""

PASSED, NOT_PASSED = 2, 1
"""Adapters that stay: of each model, those that passed their guard; of all, those that did not."""

_NAME = re.compile(r"mindscore-[0-9a-f]{12}")


def name_of(key: str) -> str:
    """Return the name of a hand-off's folder, and of its adapter."""
    return f"mindscore-{key[:12]}"


def remove_superseded(
    folder: Path, ended: Callable[[str], TrainingJob | None], in_use: Container[Path]
) -> None:
    """Remove what hand-offs below ``folder`` have left, but for the newest of them.

    Those of ``in_use`` stay, and so does everything that the sink has not written. What says that a
    hand-off was trained stays too: under its key, it is not trained again. ``ended`` returns the
    job of a folder that has passed its guard.

    Raises:
        OSError: a file cannot be read or removed.
    """
    groups: dict[str | None, list[tuple[int, Path]]] = defaultdict(list)
    for made, it in _written(folder):
        job = ended(it.name)
        groups[None if job is None else job.model].append((made, it))
    for model, found in groups.items():
        for _, it in sorted(found)[: -(NOT_PASSED if model is None else PASSED)]:
            if it / ADAPTER not in in_use:
                _remove(it)


def _written(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the hand-offs of which more is there than that they were trained, with their times."""
    for it in folder.iterdir():
        if _NAME.fullmatch(it.name) and not it.is_symlink():
            with suppress(FileNotFoundError, NotADirectoryError):
                yield (it / JOB).stat().st_mtime_ns, it


def _remove(folder: Path) -> None:
    shutil.rmtree(folder / ADAPTER, ignore_errors=True)
    # The description goes last: by it, the rest is found again after an error.
    for name in (LOG, JOB):
        (folder / name).unlink(missing_ok=True)
    # It has more, if it has passed its guard, or if somebody has put something there.
    with suppress(OSError):
        folder.rmdir()
