"""Advice on an archive, arranged for the pages: groups, orders, and each memory's pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mindscore._util.text import count_of
from mindscore.measure.archive_advice import ArchiveAdvice, Period, ResponsePlace
from mindscore.measure.summaries import Effect, MemoryEvidence
from mindscore.measure.verdicts import Advice, Verdict
from mindscore.pages.environment import day

VERDICTS = {
    Verdict.HARMFUL: ("less", "make responses less likely: look at them"),
    Verdict.DROP: ("", "help by nothing that matters"),
    Verdict.MERGE: ("", "do what another memory does, too"),
    Verdict.KEEP: ("more", "are missed without them"),
    Verdict.NOT_ENOUGH_EVIDENCE: ("", "need more conversations to say"),
}
"""A CSS class for each verdict, and what its memories do."""

REMOVABLE = (Verdict.DROP, Verdict.MERGE)

ORDERS: dict[str, tuple[str, Callable[[Advice], Any]]] = {
    "key": ("Memory", lambda it: it.key),
    "nats": ("Value", lambda it: it.evidence.nats),
    "helped": ("Helped", lambda it: it.evidence.helped),
    "harmed": ("Harmed", lambda it: it.evidence.harmed),
    "tokens": ("Tokens a turn", lambda it: it.evidence.context_tokens),
    "last": ("Last helped", lambda it: it.evidence.last_helped),
}
"""Orders of memories: heading, and what is compared; ``None`` comes last."""

BAR_WIDTH, BAR_HEIGHT = 120, 12
TIME_WIDTH, TIME_HEIGHT = 140, 32
WIDEST = 12
"""Pixels of a bar for a period, at most."""

SIZES = {
    "bar_width": BAR_WIDTH,
    "bar_height": BAR_HEIGHT,
    "time_width": TIME_WIDTH,
    "time_height": TIME_HEIGHT,
}
PERIOD_S = {"week": 7 * 86400.0, "month": 30.4 * 86400.0}


@dataclass(frozen=True, slots=True)
class Group:
    """The memories of one verdict; ``kind`` is a CSS class.

    ``tokens`` a turn would be saved without them: ``None`` where the verdict is not to remove them,
    or no length is known. ``unknown``: number of memories whose length is not known; ``kept``:
    number of those that the receipt says to keep, which save nothing.
    """

    verdict: Verdict
    kind: str
    words: str
    number: int
    tokens: float | None
    unknown: int
    kept: int


def groups(archive: ArchiveAdvice) -> list[Group]:
    """Return the memories by verdict, those to look at first; each verdict has a group."""
    removable = archive.removable
    found = []
    for verdict, (kind, words) in VERDICTS.items():
        its = archive.of(verdict)
        removed = [archive.tokens_a_turn(it) for it in removable if it.verdict == verdict]
        known = [it for it in removed if it is not None]
        saved = sum(known) if known else None
        unknown = len(removed) - len(known)
        kept = len(its) - len(removed) if verdict in REMOVABLE else 0
        found.append(Group(verdict, kind, words, len(its), saved, unknown, kept))
    return found


def ordered(advice: Sequence[Advice], order: str, descending: bool) -> list[Advice]:
    """Return ``advice`` in one of ``ORDERS``; what has no value comes last, whichever way."""
    value = ORDERS[order][1]
    known = [it for it in advice if value(it) is not None]
    unknown = [it for it in advice if value(it) is None]
    return [*sorted(known, key=value, reverse=descending), *unknown]


@dataclass(frozen=True, slots=True)
class ValueBar:
    """A memory's value and the interval of it, as places from 0 to ``BAR_WIDTH``."""

    zero: float
    at: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class TimeBars:
    """The effect of a memory over time, as SVG paths: a bar up or down for each period.

    ``judged`` is a line at 0 wherever it was judged; ``words`` say the same.
    """

    helped: str
    harmed: str
    judged: str
    words: str


@dataclass(frozen=True, slots=True)
class MemoryCard:
    """A memory as the pages show it.

    ``number`` is its place in the advice; ``is_kept``: its removal was proposed, and measured to
    cost too much. ``best`` and ``worst`` are effects on single responses.
    """

    number: int
    advice: Advice
    text: str | None
    bar: ValueBar
    line: TimeBars | None
    is_kept: bool
    best: tuple[Effect, ResponsePlace | None] | None
    worst: Sequence[tuple[Effect, ResponsePlace | None]]

    @property
    def kind(self) -> str:
        """The CSS class of its verdict."""
        return VERDICTS[self.advice.verdict][0]


@dataclass(slots=True)
class ArchiveCards:
    """Makes the cards of an archive's memories, all on the same scales.

    ``low`` and ``high`` are the least and the most that any value may be, ``least`` and ``most``
    those of any period, in nats, 0 being between; ``longest`` is that of a text, in characters.
    """

    archive: ArchiveAdvice
    longest: int
    numbers: dict[str, int] = field(init=False)
    low: float = field(init=False)
    high: float = field(init=False)
    least: float = field(init=False)
    most: float = field(init=False)
    first: float = field(init=False)
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = {it.key: at for at, it in enumerate(self.archive.advice)}
        values = [0.0]
        for it in self.archive.advice:
            interval = it.evidence.nats_interval
            values += (it.evidence.nats, *((interval.low, interval.high) if interval else ()))
        self.low, self.high = min(values), max(values)
        periods = [it for line in self.archive.timeline.values() for it in line]
        nats = [0.0, *(it.nats for it in periods)]
        self.least, self.most = min(nats), max(nats)
        self.first = min((it.begins for it in periods), default=0.0)
        self.last = max((it.begins for it in periods), default=0.0)

    def card(self, advice: Advice) -> MemoryCard:
        """Return the card of one memory."""
        it = advice.evidence
        text = (
            self.archive.texts.get(it.version.key) if it.version.text is None else it.version.text
        )
        if text is not None and len(text) > self.longest:
            text = f"{text[: self.longest]}…"
        return MemoryCard(
            self.numbers[advice.key],
            advice,
            text,
            self._bar(it),
            self._line(self.archive.timeline.get(advice.key, ())),
            advice.key in self.archive.kept_for,
            (it.largest, self._place(it.largest)) if it.largest else None,
            [(effect, self._place(effect)) for effect in it.worst],
        )

    def _place(self, effect: Effect) -> ResponsePlace | None:
        return self.archive.places.get(effect.response)

    def _bar(self, it: MemoryEvidence) -> ValueBar:
        span = (self.high - self.low) or 1.0

        def at(nats: float) -> float:
            return round(BAR_WIDTH * (nats - self.low) / span, 1)

        interval = it.nats_interval
        ends = (at(interval.low), at(interval.high)) if interval else (None, None)
        return ValueBar(at(0.0), at(it.nats), *ends)

    def _line(self, periods: Sequence[Period]) -> TimeBars | None:
        if not periods:
            return None
        step = PERIOD_S[self.archive.period]
        per_second = TIME_WIDTH / (self.last - self.first + step)
        # A pixel, for the line, is left above and below.
        tall = (TIME_HEIGHT - 2) / ((self.most - self.least) or 1.0)
        zero = round(1 + tall * self.most, 1)
        # A gap between two, where there is room for one.
        wide = step * per_second
        wide = round(min(WIDEST, wide - 1) if wide > 3 else max(1.0, wide), 1)
        helped: list[str] = []
        harmed: list[str] = []
        judged: list[str] = []
        for it in periods:
            x = round((it.begins - self.first) * per_second, 1)
            judged.append(f"M{x:g} {zero:g}h{wide:g}")
            height = round(tall * it.nats, 1)
            if height:
                bars = helped if height > 0 else harmed
                bars.append(f"M{x:g} {zero:g}v{-height:g}h{wide:g}v{height:g}z")
        words = self._words(periods)
        return TimeBars("".join(helped), "".join(harmed), "".join(judged), words)

    def _words(self, periods: Sequence[Period]) -> str:
        """Return what a line shows: for those who do not see it, and on hover."""
        strongest = max(periods, key=lambda it: abs(it.nats))
        name = self.archive.period
        total = sum(it.nats for it in periods)
        span = f"{count_of(len(periods), name)} from {day(periods[0].begins)}"
        return (
            f"{total:+,.1f} nats over {span}, "
            f"the most in the {name} of {day(strongest.begins)}: {strongest.nats:+,.1f}, "
            f"{count_of(strongest.helped, 'response')} of {strongest.judged} helped, "
            f"{strongest.harmed} harmed"
        )
