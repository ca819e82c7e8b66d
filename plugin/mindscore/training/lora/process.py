"""The training process, seen from the one that starts it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from mindhooks import in_thread
from mindscore._util.errors import TrainError
from mindscore._util.files import make_file, write_whole
from mindscore._util.text import LINE, one_line
from mindscore.training.lora.job import ADAPTER, JOB, Failure, Job, Progress

LOG = "log"

_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that spin while they wait for each other take the cores from those they wait for, where
others compute too: measured, a step takes 40 s instead of 6."""


async def train_adapter(
    job: Job, folder: Path, hear: Callable[[Progress], None] = lambda _: None
) -> Path:
    """Train in a process of its own; the folder of the adapter, in PEFT's format.

    ``folder``, private, is the job's own: its description is written there, its log and the
    adapter. ``hear`` is told of each epoch. When cancelled, or when this process ends, the other
    one ends too.

    Raises:
        TrainError: why there is no adapter.
        OSError: ``folder`` cannot be written to.
    """
    require_peft()
    await in_thread(_describe, job, folder)
    with (folder / LOG).open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            # Without -P, a msgspec.py or torch.py in the current folder would be run.
            *(sys.executable, "-P", "-m", "mindscore.training.lora", str(folder)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(job.threads), **_WAITING},
            # Ctrl-C in a terminal is this process's to act upon.
            start_new_session=True,
        )
    failure = None
    try:
        async for line in cast(asyncio.StreamReader, process.stdout):
            told = msgspec.json.decode(line, type=Progress | Failure)
            if isinstance(told, Failure):
                failure = told.error
            else:
                hear(told)
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status != 0:
        raise TrainError(f"the training failed: {failure or _ending(status, folder / LOG)}")
    return folder / ADAPTER


def require_peft() -> None:
    """Refuse to begin where nothing can be trained.

    Raises:
        TrainError: the text has the command that installs what is missing.
    """
    for name in ("torch", "transformers", "peft"):
        if importlib.util.find_spec(name) is None:
            raise TrainError(
                f"training needs {name}; install it with: pip install 'mindscore[train]'"
            )


def _describe(job: Job, folder: Path) -> None:
    make_file(folder / LOG)
    write_whole(folder / JOB, msgspec.json.encode(job))


def _ending(status: int, log: Path) -> str:
    if status == -signal.SIGKILL:
        return "its process was killed, as it is when memory runs out"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return one_line(f"its process ended with status {status}: {lines[-1] if lines else ''}", LINE)
