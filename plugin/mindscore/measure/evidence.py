"""What is known of the memories of an archive, in columns, and each memory's share of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mindscore.measure.divergence import FEWEST, OF_MEDIAN, UNMEASURED_NOISE

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


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
    cell only: of several models or modes, one is to be chosen before.

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

    def __post_init__(self) -> None:
        columns = (self.conversation, self.response, self.signed, self.hold, self.noise, self.time)
        if {len(column) for column in columns} != {len(self.memory)}:
            raise ValueError("the columns of the evidence differ in length")
        if len(self.memory) and not 0 <= self.memory.min() <= self.memory.max() < len(
            self.versions
        ):
            raise ValueError(f"memory: expected an index below {len(self.versions)}")


@dataclass(frozen=True, slots=True)
class Interval:
    """The range in which a value lies, at the confidence that was asked for."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What a memory did to one response: its numbers in the columns, and nats."""

    response: int
    conversation: int
    signed: float


@dataclass(frozen=True, slots=True)
class MemoryEvidence:
    """What is known of one version of a memory.

    ``conversations`` and ``responses`` are those judged; ``helped`` and ``harmed`` count the
    responses on which its effect is beyond their ``noise_limit``, and ``by_chance`` is how many a
    memory without any effect would be expected to seem to help. ``nats`` is its effect in all,
    beyond what a typical memory does to the same responses; ``mean`` is that per response, and
    ``interval`` where the mean lies (``None``: too few conversations to say). ``largest`` is the
    help that is at stake, ``worst`` are the responses that it harmed, the most harmed first.
    ``last_helped`` is in seconds since the epoch. ``p_help`` and ``p_harm`` are the chances of such
    evidence if the memory did nothing.
    """

    version: MemoryVersion
    conversations: int
    responses: int
    helped: int
    harmed: int
    by_chance: float
    nats: float
    mean: float
    interval: Interval | None
    largest: Effect | None
    worst: tuple[Effect, ...]
    last_helped: float | None
    p_help: float
    p_harm: float

    @property
    def nats_interval(self) -> Interval | None:
        """The interval of ``nats``."""
        if self.interval is None:
            return None
        return Interval(self.interval.low * self.responses, self.interval.high * self.responses)

    @property
    def context_tokens(self) -> int | None:
        """Tokens of context that it cost in all; ``None`` where its length is not known."""
        return None if self.version.tokens is None else self.version.tokens * self.version.contexts

    @property
    def nats_per_1000_tokens(self) -> float | None:
        """Nats for 1,000 tokens of context; ``None`` where the cost is not known."""
        return 1000 * self.nats / self.context_tokens if self.context_tokens else None


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The cells that count, in a fixed order, each set against its response's null.

    ``conversation`` and ``response`` are numbered from 0; ``conversation_ids`` and ``response_ids``
    give the columns' own. ``limit`` is the response's ``noise_limit``; ``effect`` is ``signed``
    less what the typical memory does to that response; ``size`` is that in limits.
    """

    memories: int
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
    effect: Floats = field(init=False)
    size: Floats = field(init=False)

    def __post_init__(self) -> None:
        typical, counts = grouped_median(self.response, self.signed)
        typical[counts < FEWEST] = 0.0
        effect = self.signed - typical[self.response]
        object.__setattr__(self, "effect", effect)
        object.__setattr__(self, "size", effect / self.limit)


def judged_cells(columns: EvidenceColumns) -> Cells:
    """Return the cells in which a memory was judged, by conversation, response and memory.

    Raises:
        ValueError: a memory and a response meet in two cells.
    """
    order = np.lexsort((columns.memory, columns.response, columns.conversation))
    signed = columns.signed[order]
    order = order[np.isfinite(signed) & (signed != 0)]
    memory, response = columns.memory[order], columns.response[order]
    if ((memory[1:] == memory[:-1]) & (response[1:] == response[:-1])).any():
        raise ValueError("a memory and a response meet in two cells of the evidence")
    conversation_ids, conversation = np.unique(columns.conversation[order], return_inverse=True)
    response_ids, response = np.unique(response, return_inverse=True)
    signed, noise = columns.signed[order], columns.noise[order]
    return Cells(
        memories=len(columns.versions),
        memory=memory,
        conversation=conversation,
        response=response,
        conversation_ids=conversation_ids,
        response_ids=response_ids,
        signed=signed,
        hold=columns.hold[order],
        noise=noise,
        time=columns.time[order],
        limit=noise_limits(response, signed, noise),
    )


def noise_limits(response: Integers, signed: Floats, noise: Floats) -> Floats:
    """Return the ``divergence.noise_limit`` of each cell; ``noise`` is NaN where unknown."""
    middle, counts = grouped_median(response, np.abs(signed))
    spread = np.where(counts >= FEWEST, OF_MEDIAN * middle, 0.0)[response]
    known = np.where(np.isnan(noise), 0.0, noise)
    limit: Floats = np.maximum(known, spread)
    limit[np.isnan(noise) & (spread == 0)] = UNMEASURED_NOISE
    # Without noise and without spread, anything is an effect.
    return np.maximum(limit, np.finfo(float).tiny)


def grouped_median(groups: Integers, values: Floats) -> tuple[Floats, Integers]:
    """Return the median of each group's values, 0.0 for one without any, and their number.

    ``groups`` are numbered from 0.
    """
    counts = np.bincount(groups)
    if not len(counts):
        return np.zeros(0), counts
    ordered = values[np.lexsort((values, groups))]
    starts = np.cumsum(counts) - counts
    last = max(len(ordered) - 1, 0)
    low = np.minimum(starts + np.maximum(counts - 1, 0) // 2, last)
    high = np.minimum(starts + counts // 2, last)
    return np.where(counts > 0, (ordered[low] + ordered[high]) / 2, 0.0), counts
