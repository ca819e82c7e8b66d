"""Advice on all memories of an archive, what it rests on, and what following it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import PurePath
from typing import Literal

from mindscore._util.text import count_of
from mindscore.measure.verdicts import Advice, Verdict

MOST_NAMED = 5
"""Responses that are named as those that lose or gain the most."""


@dataclass(frozen=True, slots=True)
class ResponsePlace:
    """A response of the archive.

    ``conversation`` is ``Context.id``, ``title`` how that begins and ``source`` the file that it
    was read from, each empty if it is not known. ``node_id`` and ``entry_idx`` are the response's
    within it; ``responded_at``, its own time, is in seconds since the epoch, ``None`` if unknown.
    ``shares_file``: other conversations of the archive were read from the same file.
    """

    conversation: str
    title: str
    source: str
    node_id: str
    entry_idx: int
    responded_at: float | None = None
    shares_file: bool = False

    @property
    def name(self) -> str:
        """The words by which a reader finds the conversation."""
        file = PurePath(self.source).name
        if self.title or (file and not self.shares_file):
            return self.title or file
        return f"{self.conversation} in {file}" if file else self.conversation


@dataclass(frozen=True, slots=True)
class Period:
    """The effect of one memory in one stretch of time, which ``begins`` in seconds since the epoch.

    ``judged`` counts responses, ``helped`` and ``harmed`` those changed beyond their noise limit;
    ``nats`` is the sum of all its effects on them.
    """

    begins: float
    judged: int
    helped: int
    harmed: int
    nats: float


@dataclass(frozen=True, slots=True)
class JointEffect:
    """The effect on one response, in nats, of all the memories that were removed together.

    It is positive where they helped. ``limit``: a smaller one cannot be told from chance.
    """

    place: ResponsePlace
    signed: float
    limit: float


@dataclass(frozen=True, slots=True)
class JointRemoval:
    """The effect on the archive of removing the memories ``keys`` together.

    ``responses`` are those behind any of them. ``lost`` is the help, in nats, that ``missed`` of
    them lose, and ``gained`` the harm that ``freed`` of them are rid of, each beyond its limit;
    ``rest`` is the sum of all effects within their limits, positive for a loss. ``worst`` are the
    largest losses, ``best`` the largest gains. ``tokens`` is the sum, over the responses, of those
    by which their prompts are shorter.
    """

    keys: tuple[str, ...]
    responses: int = 0
    lost: float = 0.0
    missed: int = 0
    gained: float = 0.0
    freed: int = 0
    rest: float = 0.0
    tokens: int = 0
    worst: tuple[JointEffect, ...] = ()
    best: tuple[JointEffect, ...] = ()

    @property
    def net(self) -> float:
        """The sum of all effects in nats: losses less gains."""
        return self.lost - self.gained + self.rest

    @property
    def tokens_a_turn(self) -> float:
        """The tokens saved for each response, on average."""
        return self.tokens / max(1, self.responses)


def joint_removal(
    keys: tuple[str, ...], effects: Iterable[JointEffect], tokens: int
) -> JointRemoval:
    """Return the sums of what a removal does to responses."""
    found = list(effects)
    lost = [it for it in found if it.signed > it.limit]
    gained = [it for it in found if it.signed < -it.limit]
    return JointRemoval(
        keys=keys,
        responses=len(found),
        lost=math.fsum(it.signed for it in lost),
        missed=len(lost),
        gained=-math.fsum(it.signed for it in gained),
        freed=len(gained),
        rest=math.fsum(it.signed for it in found if abs(it.signed) <= it.limit),
        tokens=tokens,
        worst=_largest(lost),
        best=_largest(gained),
    )


def in_all(keys: tuple[str, ...], removals: Iterable[JointRemoval]) -> JointRemoval:
    """Return what the removals in several conversations come to."""
    its = list(removals)
    return JointRemoval(
        keys=keys,
        responses=sum(it.responses for it in its),
        lost=math.fsum(it.lost for it in its),
        missed=sum(it.missed for it in its),
        gained=math.fsum(it.gained for it in its),
        freed=sum(it.freed for it in its),
        rest=math.fsum(it.rest for it in its),
        tokens=sum(it.tokens for it in its),
        worst=_largest(effect for it in its for effect in it.worst),
        best=_largest(effect for it in its for effect in it.best),
    )


def _largest(effects: Iterable[JointEffect]) -> tuple[JointEffect, ...]:
    return tuple(nlargest(MOST_NAMED, effects, key=lambda it: abs(it.signed)))


@dataclass(frozen=True, slots=True)
class Proposed:
    """A memory that may go: a hash of the text that was judged, empty where that is not known.

    ``instead`` is the memory that does its work: where that is not in the context, it stays.
    """

    text_hash: str
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The cost of following the advice, as measured: the proposed drops removed together.

    ``proposed`` are the keys of the drops, and of the merges' copies. ``rounds`` begins with their
    joint removal; each further one is without those that were found missing in the one before, so
    that the last is without all of ``kept``. ``kept_for`` has, for each of these, the response that
    missed it most, and the nats that its return recovered there. ``conversations`` were measured;
    ``unmeasured`` are lines on what was not. ``is_complete``: no budget or failure has ended it
    early. ``drops`` are the memories of ``proposed`` as they were judged, empty if that is not
    known. ``verified_at`` is in seconds since the epoch.
    """

    proposed: tuple[str, ...]
    kept: tuple[str, ...]
    kept_for: Mapping[str, JointEffect]
    rounds: tuple[JointRemoval, ...]
    conversations: int
    calls: int
    prompt_tokens: int
    computed_tokens: int | None
    unmeasured: tuple[str, ...] = ()
    is_complete: bool = True
    drops: Mapping[str, Proposed] = field(default_factory=dict)
    verified_at: float = 0.0

    @property
    def first(self) -> JointRemoval:
        """The effect of removing all that was proposed."""
        return self.rounds[0]

    @property
    def last(self) -> JointRemoval:
        """The effect of removing what is left of it."""
        return self.rounds[-1]


def changed_drops(before: Mapping[str, Proposed], now: Mapping[str, Proposed]) -> str:
    """Return how the proposed drops have changed, for people; empty if they have not."""
    both = before.keys() & now.keys()
    counts = {
        "not proposed any more": len(before.keys() - now.keys()),
        "proposed since": len(now.keys() - before.keys()),
        "changed, or to be merged with another": sum(before[key] != now[key] for key in both),
    }
    return ", ".join(
        f"{count_of(count, 'memory is', 'memories are')} {words}"
        for words, count in counts.items()
        if count
    )


@dataclass(frozen=True, slots=True)
class ArchiveAdvice:
    """The advice on each memory of a namespace, by one model and in one mode.

    ``conversations`` and ``responses`` are those in which anything was judged, ``cells`` all
    effects that were read, of which ``estimated`` are a screen's estimates; ``first_scored`` and
    ``last_scored`` are when, in seconds since the epoch, 0.0 if there are none. ``advice`` is in
    order of verdicts, as a table shows it. ``remarks`` are lines on what the advice does not rest
    on. ``timeline`` has the periods of each key's current text, oldest first, and ``texts`` a line
    of it (none where it is not kept). ``places`` are the responses that ``Effect.response`` names
    in the evidence. ``receipt`` is the last one of this model's advice; ``stale`` says how the
    proposed drops have changed since it was made, empty if they have not.
    """

    model: str
    mode: Literal["full", "incremental"]
    namespace: str
    conversations: int
    responses: int
    cells: int
    first_scored: float
    last_scored: float
    advice: tuple[Advice, ...]
    remarks: tuple[str, ...] = ()
    receipt: Receipt | None = None
    period: Literal["week", "month"] = "week"
    timeline: Mapping[str, tuple[Period, ...]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[int, ResponsePlace] = field(default_factory=dict)
    stale: str = ""
    estimated: int = 0

    def of(self, *verdicts: Verdict) -> list[Advice]:
        """Return the advice with one of ``verdicts``, in order."""
        return [it for it in self.advice if it.verdict in verdicts]

    def tokens_a_turn(self, it: Advice) -> float | None:
        """Return the tokens that a memory costs for each response, on average over all of them.

        ``None``: its length is not known.
        """
        tokens = it.evidence.context_tokens
        return None if tokens is None else tokens / max(1, self.responses)

    @property
    def proposed(self) -> list[Advice]:
        """The drops and the merges' superfluous copies."""
        return self.of(Verdict.DROP, Verdict.MERGE)

    @property
    def kept_for(self) -> Mapping[str, JointEffect]:
        """The keys that the receipt says to keep, and why: none if it is stale."""
        return {} if self.receipt is None or self.stale else self.receipt.kept_for

    @property
    def removable(self) -> list[Advice]:
        """The proposed drops, less those that the receipt says to keep."""
        kept = self.kept_for
        return [it for it in self.proposed if it.key not in kept]

    @property
    def drops(self) -> dict[str, Proposed]:
        """The proposed drops by key, each as it was judged."""
        return {
            it.key: Proposed(it.evidence.version.text_hash, it.merge_with) for it in self.proposed
        }
