"""What a training process is told, and what it tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from mindscore.measure.prompts import common_prefix


class Sample(Struct, frozen=True):
    """What to say, ``continuation_ids``, after what: ``context_ids``. Neither is empty."""

    context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole sequence."""
        return self.context_ids + self.continuation_ids


@dataclass(frozen=True, slots=True)
class Packed:
    """One sequence and where it is to be learnt from.

    ``rows`` are the indices before the tokens to be learnt, in order: the logits of row i are those
    of token i + 1. A token that several samples have to say is there as many times.
    """

    ids: tuple[int, ...]
    rows: tuple[int, ...]


def pack(samples: Sequence[Sample]) -> list[Packed]:
    """The fewest sequences that hold ``samples`` from their beginning."""
    sequences: list[tuple[tuple[int, ...], list[int]]] = []
    # In order, what begins with a sample follows it at once.
    for sample in sorted(samples, key=lambda it: it.ids, reverse=True):
        ids = sample.ids
        if not sequences or common_prefix(sequences[-1][0], ids) < len(ids):
            sequences.append((ids, []))
        sequences[-1][1].extend(range(len(sample.context_ids) - 1, len(ids) - 1))
    return [Packed(ids, tuple(sorted(rows))) for ids, rows in sequences]


JOB = "job.json"
ADAPTER = "adapter"
"""In a job's folder: what it is told, and what comes of it."""

Positive = Annotated[float, Meta(gt=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """How an adapter is trained: AdamW without weight decay, one step for each sequence.

    ``epochs`` is the most; training ends once the mean loss per token, in nats, of an epoch is
    below ``target`` times that of the first. The learning rate rises for ``warmup_steps``, then
    stays. ``keep`` weighs, against that loss, the mean divergence (KL, in nats per token) from what
    the model says without an adapter of the tokens that are not to be learnt.
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
    """One training: of ``model``, as ``[server] model`` names it.

    ``start`` is the folder of an adapter to go on from, ``threads`` how many compute; the process
    is less urgent by ``niceness``.
    """

    model: str
    samples: list[Sample]
    recipe: Recipe = Recipe()
    start: str = ""
    threads: AtLeastOne = 1
    niceness: int = 0


class Progress(Struct, frozen=True, tag=True):
    """How far it is: ``loss`` is the mean per token of the last epoch, in nats."""

    epoch: int
    epochs: int
    loss: float
    seconds: float


class Failure(Struct, frozen=True, tag=True):
    """Why it ended without an adapter."""

    error: str
