"""Effects of the memories of an archive, in columns, and each set against its response's null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mindscore.measure.divergence import FEWEST, OF_MEDIAN, UNMEASURED_NOISE

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MemoryVersion:
    """One text of a memory; an edited memory has several, of the same key.

    ``tokens`` are those of the text, ``None`` where unknown; ``contexts`` is the number of
    responses whose context held it; ``last_seen`` is in seconds since the epoch. Of several
    versions the one seen last is the current one, and of equals the last in order.
    """

    key: str
    text_hash: str = ""
    tokens: int | None = None
    contexts: int = 0
    last_seen: float = 0.0
    text: str | None = None


@dataclass(frozen=True, slots=True)
class EvidenceColumns:
    """Effects of memories on responses, one cell each, in columns of equal length.

    ``memory`` is an index into ``versions``; ``conversation`` and ``response`` are any numbers that
    tell one from another, a response's number being unique in the whole archive. ``signed`` is in
    nats: NaN where not measured, 0.0 where the memory cannot have had an effect (neither counts as
    judged). ``hold`` and ``noise`` are in nats, NaN where unknown; ``time`` is that of the
    response, in seconds since the epoch, NaN where unknown. A memory and a response meet in one
    cell only: of several models or modes, one is to be chosen before. ``estimated`` are the cells
    that a screen has estimated, with the error as their noise; an estimate of 0.0 is one, too.
    ``None``: all are measured.

    Raises:
        ValueError: the columns differ in length, a memory has no version, or a cell is there twice.
    """

    versions: Sequence[MemoryVersion]
    memory: Integers
    conversation: Integers
    response: Integers
    signed: Floats
    hold: Floats
    noise: Floats
    time: Floats
    estimated: Flags | None = None

    def __post_init__(self) -> None:
        columns = (self.conversation, self.response, self.signed, self.hold, self.noise, self.time)
        lengths = {len(column) for column in columns}
        if self.estimated is not None:
            lengths.add(len(self.estimated))
        if lengths != {len(self.memory)}:
            raise ValueError("the columns of the evidence differ in length")
        if len(self.memory) and not 0 <= self.memory.min() <= self.memory.max() < len(
            self.versions
        ):
            raise ValueError(f"memory: expected an index below {len(self.versions)}")


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The cells that count, in a fixed order, each set against its response's null.

    ``conversation`` and ``response`` are numbered from 0; ``conversation_ids`` and ``response_ids``
    give the columns' own. ``noise`` is 0.0 where unknown; ``limit`` is the response's
    ``noise_limit``; ``effect`` is ``signed`` less what the typical memory does to that response;
    ``size`` is that in limits, of 1 nat at least where too few memories are known to say what is
    typical. ``rows`` are the columns' rows; ``is_assumed``: the limit is none that was measured;
    ``is_estimate``: so is ``signed``.
    """

    memories: int
    rows: Integers
    memory: Integers
    conversation: Integers
    response: Integers
    conversation_ids: Integers
    response_ids: Integers
    signed: Floats
    hold: Floats
    noise: Floats
    time: Floats
    limit: Floats
    is_assumed: Flags
    is_estimate: Flags
    effect: Floats
    size: Floats


def judged_cells(columns: EvidenceColumns) -> Cells:
    """Return the cells in which a memory was judged, by conversation, response and memory.

    Raises:
        ValueError: a memory and a response meet in two cells.
    """
    estimated = columns.estimated
    if estimated is None:
        estimated = np.zeros(len(columns.memory), bool)
    order = np.flatnonzero(np.isfinite(columns.signed) & ((columns.signed != 0) | estimated))
    order = order[
        np.lexsort((columns.memory[order], columns.response[order], columns.conversation[order]))
    ]
    memory, response = columns.memory[order], columns.response[order]
    response_ids, response = _numbered(response)
    if ((memory[1:] == memory[:-1]) & (response[1:] == response[:-1])).any():
        raise ValueError("a memory and a response meet in two cells of the evidence")
    conversation_ids, conversation = _numbered(columns.conversation[order])
    signed, noise = columns.signed[order], columns.noise[order]
    typical, counts = grouped_median(response, signed)
    is_known = (counts >= FEWEST)[response]
    effect = signed - np.where(is_known, typical[response], 0.0)
    limit = noise_limits(response, signed, noise)
    return Cells(
        memories=len(columns.versions),
        rows=order,
        memory=memory,
        conversation=conversation,
        response=response,
        conversation_ids=conversation_ids,
        response_ids=response_ids,
        signed=signed,
        hold=columns.hold[order],
        noise=np.where(np.isnan(noise), 0.0, noise),
        time=columns.time[order],
        limit=limit,
        is_assumed=np.isnan(noise) & ~is_known,
        is_estimate=estimated[order],
        effect=effect,
        # Noise is the server's alone: with it and no spread, chance effects are larger.
        size=effect / np.where(is_known, limit, np.maximum(limit, UNMEASURED_NOISE)),
    )


def _numbered(ids: Integers) -> tuple[Integers, Integers]:
    """Return each run of equal ``ids``, and the number of the run that each is in."""
    begins = np.ones(len(ids), bool)
    begins[1:] = ids[1:] != ids[:-1]
    return ids[begins], np.cumsum(begins) - 1


def noise_limits(response: Integers, signed: Floats, noise: Floats) -> Floats:
    """Return the ``divergence.noise_limit`` of each cell; ``noise`` is NaN where unknown."""
    middle, counts = grouped_median(response, np.abs(signed))
    spread = np.where(counts >= FEWEST, OF_MEDIAN * middle, 0.0)[response]
    known = np.where(np.isnan(noise), 0.0, noise)
    limit: Floats = np.maximum(known, spread)
    limit[np.isnan(noise) & (spread == 0)] = UNMEASURED_NOISE
    return limit


def grouped_median(groups: Integers, values: Floats, number: int = 0) -> tuple[Floats, Integers]:
    """Return the median of each group's values, 0.0 for one without any, and their number.

    ``groups`` are numbered from 0, in ascending order; there are ``number`` at least.
    """
    counts = np.bincount(groups, minlength=number)
    starts, medians = np.cumsum(counts) - counts, np.zeros(len(counts))
    # Groups of a size are a table: much faster than to sort all values.
    for size in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == size)
        table = values[starts[rows, None] + np.arange(size)]
        medians[rows] = np.median(table, axis=1)
    return medians, counts
