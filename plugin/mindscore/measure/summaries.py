"""The evidence on each memory of an archive: counts, sums, intervals, tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mindscore.config.settings import AdviseSettings
from mindscore.measure import bootstrap
from mindscore.measure.evidence import Cells, Flags, Floats, Integers, MemoryVersion

MOST_NAMED = 10
"""Responses that are named where a memory harmed many."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The range in which a value lies, at the confidence that was asked for."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a memory on one response: its numbers in the columns, and nats.

    ``is_estimate``: a screen has estimated it, and nothing measured.
    """

    response: int
    conversation: int
    signed: float
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class MemoryEvidence:
    """The facts known of one version of a memory.

    ``conversations`` and ``responses`` are those judged; ``helped`` and ``harmed`` count the
    responses on which its effect is beyond their ``noise_limit``, and ``by_chance`` is how many a
    memory that does nothing would seem to help. ``nats`` is its effect in all, beyond what a
    typical memory does to the same responses, and ``mean`` that per response; ``interval`` is where
    the mean lies (``None``: too few conversations to say) and ``error`` its standard error.
    ``cost_of_dropping`` is the most nats per response that would be lost without it: the upper end
    of that interval, or of the same without regard to what a typical memory does, if lower.
    ``largest`` is the most help to one response, beyond the limit: what is at stake. ``worst`` are
    responses that it harmed, at most ``MOST_NAMED``, the most harmed first. ``last_helped`` is in
    seconds since the epoch. If the memory did nothing, ``p_help`` and ``p_harm`` are the chances of
    such evidence of help and of harm, ``p_largest`` that of so large a single help; ``p_idle`` is
    that of so low a mean if it were ``advise.drop_below_nats``. ``estimated`` of the responses, and
    of those helped and harmed ``helped_estimated`` and ``harmed_estimated``, were not measured: the
    effects are a screen's estimates.
    """

    version: MemoryVersion
    conversations: int
    responses: int
    helped: int
    harmed: int
    by_chance: float
    nats: float
    mean: float
    error: float | None
    interval: Interval | None
    cost_of_dropping: float | None
    largest: Effect | None
    worst: tuple[Effect, ...]
    last_helped: float | None
    p_help: float
    p_harm: float
    p_largest: float
    p_idle: float
    has_hold: bool
    estimated: int = 0
    helped_estimated: int = 0
    harmed_estimated: int = 0

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


def summaries(
    versions: Sequence[MemoryVersion], cells: Cells, settings: AdviseSettings
) -> list[MemoryEvidence]:
    """Return the evidence on each version, in order."""
    number = cells.memories
    responses = np.bincount(cells.memory, minlength=number)
    conversations = _conversations(cells)
    helps, harms = cells.signed > cells.limit, cells.signed < -cells.limit
    helped, harmed = (np.bincount(cells.memory[it], minlength=number) for it in (helps, harms))
    guessed, guessed_helped, guessed_harmed = (
        np.bincount(cells.memory[it & cells.is_estimate], minlength=number)
        for it in (np.True_, helps, harms)
    )
    judged = responses > 0
    chance_rate = float(np.median(harmed[judged] / responses[judged])) if judged.any() else 0.0
    nats = np.bincount(cells.memory, cells.effect, number)
    means = bootstrap.resampled_means(cells, cells.effect, conversations)
    low, high = means.intervals(settings.confidence)
    # Where the typical memory harms, to harm less is no help.
    absolute = bootstrap.resampled_means(cells, cells.signed, conversations)
    cost = np.minimum(high, absolute.intervals(settings.confidence)[1])
    p_idle = np.minimum(*(it.p_values_below(settings.drop_below_nats) for it in (means, absolute)))
    most, least = _extremes(cells)
    p_largest = bootstrap.largest_p_values(most, -least, responses)
    p_lowest = bootstrap.largest_p_values(-least, -least, responses)
    p_help, p_harm = bootstrap.sign_flip_p_values(cells)
    # Two tests of one hypothesis: the smaller p-value, times two.
    p_help = np.minimum(1, 2 * np.minimum(p_help, p_largest))
    p_harm = np.minimum(1, 2 * np.minimum(p_harm, p_lowest))
    has_hold = np.bincount(cells.memory, np.isfinite(cells.hold), number) > 0
    best, worst = _strongest(cells, helps, 1), _strongest(cells, harms, MOST_NAMED)
    last_helped = _latest(cells, helps)
    found = []
    for memory, version in enumerate(versions):
        error = float(means.errors[memory])
        is_known = not np.isnan(low[memory])
        found.append(
            MemoryEvidence(
                version=version,
                conversations=int(conversations[memory]),
                responses=int(responses[memory]),
                helped=int(helped[memory]),
                harmed=int(harmed[memory]),
                by_chance=chance_rate * int(responses[memory]),
                nats=float(nats[memory]),
                mean=float(nats[memory]) / max(1, int(responses[memory])),
                error=None if np.isnan(error) else error,
                interval=Interval(float(low[memory]), float(high[memory])) if is_known else None,
                cost_of_dropping=None if np.isnan(cost[memory]) else float(cost[memory]),
                largest=next(iter(best[memory]), None),
                worst=worst[memory],
                last_helped=last_helped[memory],
                p_help=float(p_help[memory]),
                p_harm=float(p_harm[memory]),
                p_largest=float(p_largest[memory]),
                p_idle=float(p_idle[memory]),
                has_hold=bool(has_hold[memory]),
                estimated=int(guessed[memory]),
                helped_estimated=int(guessed_helped[memory]),
                harmed_estimated=int(guessed_harmed[memory]),
            )
        )
    return found


def _conversations(cells: Cells) -> Integers:
    """Return the number of conversations in which each memory was judged."""
    pairs = np.unique(cells.conversation * cells.memories + cells.memory)
    return np.bincount(pairs % cells.memories, minlength=cells.memories)


def _extremes(cells: Cells) -> tuple[Floats, Floats]:
    """Return each memory's largest and lowest effect, in limits; 0.0 of none."""
    most, least = np.zeros(cells.memories), np.zeros(cells.memories)
    np.maximum.at(most, cells.memory, cells.size)
    np.minimum.at(least, cells.memory, cells.size)
    return most, least


def _strongest(cells: Cells, chosen: Flags, number: int) -> list[tuple[Effect, ...]]:
    """Return the ``number`` strongest of each memory's chosen effects, the strongest first."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.lexsort((cells.response[rows], -np.abs(cells.signed[rows]), cells.memory[rows]))]
    starts = np.searchsorted(cells.memory[rows], np.arange(cells.memories + 1))
    return [
        tuple(
            Effect(
                int(cells.response_ids[cells.response[row]]),
                int(cells.conversation_ids[cells.conversation[row]]),
                float(cells.signed[row]),
                bool(cells.is_estimate[row]),
            )
            for row in rows[start : min(start + number, end)]
        )
        for start, end in pairwise(starts)
    ]


def _latest(cells: Cells, chosen: Flags) -> list[float | None]:
    """Return the time of the latest of each memory's chosen effects, where one is known."""
    latest = np.full(cells.memories, -np.inf)
    rows = chosen & np.isfinite(cells.time)
    np.maximum.at(latest, cells.memory[rows], cells.time[rows])
    return [float(time) if np.isfinite(time) else None for time in latest]
