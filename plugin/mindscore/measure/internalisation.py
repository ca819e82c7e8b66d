"""Internalisation: by how much a model knows, without its memories, what it said with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mindscore.measure.interactions import SPREADS, general_lift

DEPENDS_NATS = 1.0
"""The least that a response loses without a memory that it depends on, as ``finetune.threshold``
is by default."""

HALFWAY = 0.5
"""The part of what the memories added at first that is there without them, once they are
internalised."""

NOISES = 2.0
"""Standard deviations of the change of unrelated answers that a rise must exceed."""

State = Literal["internalised", "as asked", "no", "first"]
"""``"as asked"``: to the very question, not to the same one in other frames; ``"first"``: the
memory's first round, with which the others are compared."""


@dataclass(frozen=True, slots=True, order=True)
class MemoryVersion:
    """A memory with one text: its key, and the text's hash."""

    key: str
    text_hash: str


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A response that depends on ``memory``, as the model of one round makes it.

    ``with_memories`` and ``without_memories`` are its total log-probability, in nats, with all
    memories in the prompt and with none; ``reworded`` those without any by the frame in which the
    question was asked. ``tokens`` are the response's.
    """

    memory: MemoryVersion
    timestamp_ns: int
    continuation_hash: str
    tokens: int
    with_memories: float
    without_memories: float
    reworded: Mapping[str, float]

    @property
    def response(self) -> tuple[int, str]:
        """The response's name."""
        return self.timestamp_ns, self.continuation_hash


@dataclass(frozen=True, slots=True)
class Round:
    """A measurement of the ledger with one adapter, or with none.

    ``unrelated`` has the total log-probability, in nats, and the number of tokens of each unrelated
    answer. ``measured_at`` is in seconds since the epoch.
    """

    name: str
    adapter: str
    measured_at: float
    unrelated: tuple[tuple[float, int], ...]
    entries: tuple[LedgerEntry, ...]

    @property
    def unrelated_loss(self) -> float | None:
        """The loss of unrelated answers, in nats per token; ``None``: none were measured."""
        tokens = sum(tokens for _, tokens in self.unrelated)
        return -sum(total for total, _ in self.unrelated) / tokens if tokens else None


@dataclass(frozen=True, slots=True)
class RefusedRound:
    """A training whose adapter has not passed its guard; ``why`` has the numbers.

    ``refused_at`` is in seconds since the epoch.
    """

    name: str
    adapter: str
    refused_at: float
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A memory in one round: means over its responses, in nats.

    ``share`` is the part of what the memories added in the first round that the response has gained
    without them since; ``reworded_share`` the same where the question is asked in other frames.
    Both are 1.0 where it is as likely without memories as it was with them. They, and ``reworded``,
    are ``None`` where nothing can be compared. ``noise`` is what chance makes of a response of that
    length: one standard deviation.
    """

    responses: int
    with_memories: float
    without_memories: float
    reworded: float | None
    share: float | None
    reworded_share: float | None
    noise: float
    state: State


@dataclass(frozen=True, slots=True)
class MemoryAccount:
    """A memory over the rounds, ``None`` for those in which none of its responses was measured."""

    memory: MemoryVersion
    standings: tuple[Standing | None, ...]

    @property
    def state(self) -> State:
        """The memory's state in the last round that measured it."""
        return next(it.state for it in reversed(self.standings) if it is not None)


def depends(signed: float, hold: float | None, noise: float | None) -> bool:
    """Return whether a response depends on a memory, by the effects of it.

    ``hold``, what the memory alone does beyond unrelated ones (``beyond_lift``), tells where
    another says the same: without either, nothing is lost.
    """
    least = max(DEPENDS_NATS, NOISES * (noise or 0.0))
    return max(signed, -math.inf if hold is None else hold) >= least


def beyond_lift(holds: Sequence[float | None]) -> list[float | None]:
    """Return what each memory does alone to a response, beyond what unrelated ones do, in nats.

    ``holds`` are the effects of the memories alone on that response, ``None`` where not measured.
    Nor is it known of one that does no more than the spread of unrelated ones allows: ``None``.
    """
    known = [it for it in holds if it is not None]
    if not known:
        return list(holds)
    lift, spread = general_lift(known)
    beyond = [None if it is None else it - lift for it in holds]
    return [None if it is None or it < SPREADS * spread else it for it in beyond]


def drift(first: Round, later: Round) -> float:
    """Return by how much unrelated answers changed, in nats: the root mean square for one token.

    An answer of n tokens is taken to change by the square root of n times as much, as a sum of
    independent changes does. Nobody has taught those answers, so that this is chance.
    """
    pairs = zip(first.unrelated, later.unrelated, strict=False)
    squares = [(after - before) ** 2 / tokens for (before, tokens), (after, _) in pairs if tokens]
    return math.sqrt(_mean(squares)) if squares else 0.0


def accounts(rounds: Sequence[Round]) -> list[MemoryAccount]:
    """Return each memory's standing in each round, by key.

    A round is compared with the first that has the memory, over the responses, and the frames of
    their questions, that both have.
    """
    memories = sorted({entry.memory for it in rounds for entry in it.entries})
    return [MemoryAccount(it, tuple(_standings(it, rounds))) for it in memories]


def _standings(memory: MemoryVersion, rounds: Sequence[Round]) -> Iterator[Standing | None]:
    first: tuple[Round, dict[tuple[int, str], LedgerEntry]] | None = None
    for round_ in rounds:
        mine = {it.response: it for it in round_.entries if it.memory == memory}
        if first is None:
            first = (round_, mine) if mine else None
            yield _first_standing(list(mine.values())) if mine else None
        else:
            both = [(entry, mine[name]) for name, entry in first[1].items() if name in mine]
            yield _standing(both, drift(first[0], round_)) if both else None


def _first_standing(entries: Sequence[LedgerEntry]) -> Standing:
    asked = [_mean(list(it.reworded.values())) for it in entries if it.reworded]
    return Standing(
        responses=len(entries),
        with_memories=_mean([it.with_memories for it in entries]),
        without_memories=_mean([it.without_memories for it in entries]),
        reworded=_mean(asked) if asked else None,
        share=None,
        reworded_share=None,
        noise=0.0,
        state="first",
    )


def _standing(both: Sequence[tuple[LedgerEntry, LedgerEntry]], token_drift: float) -> Standing:
    """Return the standing of responses, each as it was first and as it is now."""
    gaps, rises = [], []
    asked_gaps, asked_rises, asked = [], [], []
    for then, now in both:
        gap = then.with_memories - then.without_memories
        gaps.append(gap)
        rises.append(now.without_memories - then.without_memories)
        if frames := then.reworded.keys() & now.reworded.keys():
            asked_gaps.append(gap)
            asked.append(_mean([now.reworded[it] for it in sorted(frames)]))
            asked_rises.append(asked[-1] - _mean([then.reworded[it] for it in sorted(frames)]))
    # A mean of independent changes varies less than each.
    noise = token_drift * math.sqrt(sum(then.tokens for then, _ in both)) / len(both)
    share, asked_share = _share(rises, gaps), _share(asked_rises, asked_gaps)
    state: State = "no"
    if _is_learnt(share, rises, noise):
        state = "internalised" if _is_learnt(asked_share, asked_rises, noise) else "as asked"
    return Standing(
        responses=len(both),
        with_memories=_mean([now.with_memories for _, now in both]),
        without_memories=_mean([now.without_memories for _, now in both]),
        reworded=_mean(asked) if asked else None,
        share=share,
        reworded_share=asked_share,
        noise=noise,
        state=state,
    )


def _share(rises: Sequence[float], gaps: Sequence[float]) -> float | None:
    return sum(rises) / sum(gaps) if gaps and sum(gaps) > 0 else None


def _is_learnt(share: float | None, rises: Sequence[float], noise: float) -> bool:
    return share is not None and share >= HALFWAY and _mean(rises) > NOISES * noise


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
