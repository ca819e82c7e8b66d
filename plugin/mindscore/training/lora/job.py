"""A training job: its samples, recipe and progress, and the process that runs it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import msgspec
from msgspec import Meta, Struct

from mindhooks import in_thread
from mindscore._util.errors import TrainError
from mindscore._util.files import make_file, write_whole
from mindscore._util.text import LINE, one_line
from mindscore.config.settings import TokenId
from mindscore.measure.prompts import common_prefix
from mindscore.training.guard import Losses

JOB, LOG, ADAPTER = "job.json", "log", "adapter"
"""In a job's folder: its description, what the process printed, and the result."""

TokenIds = Annotated[tuple[TokenId, ...], Meta(min_length=1)]
Positive = Annotated[float, Meta(gt=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]

_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that spin while they wait take the cores from the others that compute: measured, a step
takes 40 s instead of 6."""


class Sample(Struct, frozen=True):
    """A continuation to learn, and the context before it. Neither is empty."""

    context_ids: TokenIds
    continuation_ids: TokenIds

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole sequence."""
        return self.context_ids + self.continuation_ids


@dataclass(frozen=True, slots=True)
class Packed:
    """One sequence, and the rows that predict the tokens to learn.

    ``rows`` are in order; the logits of row i are those of token i + 1. A token that several
    samples have in their continuation is there as many times.
    """

    ids: tuple[int, ...]
    rows: tuple[int, ...]


def pack(samples: Sequence[Sample]) -> list[Packed]:
    """Pack samples that begin alike into the fewest sequences."""
    sequences: list[tuple[tuple[int, ...], list[int]]] = []
    # Sorted in reverse, a sample comes right after those that begin with it.
    for sample in sorted(samples, key=lambda it: it.ids, reverse=True):
        ids = sample.ids
        if not sequences or common_prefix(sequences[-1][0], ids) < len(ids):
            sequences.append((ids, []))
        sequences[-1][1].extend(range(len(sample.context_ids) - 1, len(ids) - 1))
    return [Packed(ids, tuple(sorted(rows))) for ids, rows in sequences]


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of a training: AdamW without weight decay, one step a sequence.

    Training ends after ``epochs``, or once the mean loss per token of an epoch is below ``target``
    times that of the first. The learning rate rises for ``warmup_steps``, then stays. ``keep`` is
    the weight, against that loss, of the mean KL divergence per token from the model without an
    adapter, over the tokens that are not learnt; both are in nats.
    """

    rank: AtLeastOne = 16
    alpha: AtLeastOne = 32
    learning_rate: Positive = 1e-3
    warmup_steps: AtLeastOne = 3
    epochs: AtLeastOne = 40
    target: Annotated[float, Meta(ge=0, lt=1)] = 0.45
    gradient_norm: Positive = 1.0
    keep: Annotated[float, Meta(ge=0)] = 50.0
    seed: int = 0


class Job(Struct, frozen=True):
    """One training of ``model``, as ``[server] model`` names it.

    ``start`` is the folder of an adapter to go on from, ``threads`` the number that compute, and
    ``niceness`` is added to that of the process.
    """

    model: str
    samples: list[Sample]
    recipe: Recipe = Recipe()
    start: str = ""
    threads: AtLeastOne = 1
    niceness: int = 0


class Progress(Struct, frozen=True, tag=True):
    """The progress of a training; ``loss`` is the last epoch's mean per token, in nats."""

    epoch: int
    epochs: int
    loss: float
    seconds: float


class Measures(Struct, frozen=True, tag=True):
    """The losses before a training and after it, in nats per token: with the same code, exactly.

    ``samples`` are those of the tokens that are learnt, ``unrelated`` those of the guard's answers,
    and ``base`` that of the guard's without any adapter.
    """

    samples: Losses
    unrelated: Losses
    base: float


class Failure(Struct, frozen=True, tag=True):
    """The error by which a training ended without an adapter."""

    error: str


async def train_adapter(
    job: Job,
    folder: Path,
    hear: Callable[[Progress], None] = lambda _: None,
    measured: Callable[[Measures], None] = lambda _: None,
) -> Path:
    """Train in a process of its own, and return the folder of the adapter, in PEFT's format.

    The job's description, its log and the adapter are written to ``folder``, which is private.
    ``hear`` is called after each epoch, and ``measured`` once, before the adapter is there. When
    cancelled, or when this process ends, the other one ends too.

    Raises:
        TrainError: there is no adapter; the text says why.
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
            # Ctrl-C in a terminal is for this process alone.
            start_new_session=True,
        )
    failure = None
    try:
        async for line in cast(asyncio.StreamReader, process.stdout):
            told = msgspec.json.decode(line, type=Progress | Measures | Failure)
            if isinstance(told, Failure):
                failure = told.error
            elif isinstance(told, Measures):
                measured(told)
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
    """Raise an error if a package that training needs is missing.

    Raises:
        TrainError: the text has the command that installs it.
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
