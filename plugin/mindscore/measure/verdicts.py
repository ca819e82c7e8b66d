"""Verdicts on the memories of an archive, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import NormalDist, median

import numpy as np

from mindscore._util.text import count_of
from mindscore.config.settings import AdviseSettings
from mindscore.measure.bootstrap import discoveries
from mindscore.measure.duplicates import Basis, Duplicate, find_duplicates, lowest_share
from mindscore.measure.evidence import Cells, EvidenceColumns, MemoryVersion, judged_cells
from mindscore.measure.summaries import MemoryEvidence, summaries

POWER = 0.8
"""Chance that as many more conversations as are named will do."""

_STANDARD = NormalDist()


class Verdict(StrEnum):
    """The thing to do with a memory."""

    KEEP = "keep"
    DROP = "drop"
    MERGE = "merge"
    HARMFUL = "harmful"
    NOT_ENOUGH_EVIDENCE = "not enough evidence"


@dataclass(frozen=True, slots=True)
class Advice:
    """The verdict on one memory, what it rests on, and the evidence of its earlier texts.

    ``merge_with`` is the key of the memory to keep instead. Where there is not enough evidence,
    ``more_conversations`` and ``more_responses`` are how many more would probably do, ``None``
    where more of the same would not.
    """

    key: str
    verdict: Verdict
    reason: str
    evidence: MemoryEvidence
    duplicates: tuple[Duplicate, ...] = ()
    merge_with: str | None = None
    more_conversations: int | None = None
    more_responses: int | None = None
    older: tuple[MemoryEvidence, ...] = ()


def advise(
    columns: EvidenceColumns,
    settings: AdviseSettings,
    confirmed: Iterable[Collection[str]] = (),
    cells: Cells | None = None,
) -> list[Advice]:
    """Return the advice on each memory's current text, in order of first mention.

    ``confirmed`` are groups of keys that were removed together and missed: ``RedundantGroup.keys``.
    ``cells`` are ``judged_cells(columns)``, where they are known already.
    The same evidence has the same advice, in whatever order its rows come.
    """
    cells = judged_cells(columns) if cells is None else cells
    evidence = summaries(columns.versions, cells, settings)
    current, older = _current(columns.versions)
    duplicates = find_duplicates(columns.versions, cells, current, confirmed)
    bench = _Bench([evidence[index] for index in current], duplicates, settings)
    return [replace(it, older=tuple(evidence[at] for at in older[it.key])) for it in bench.advice()]


def _current(versions: Sequence[MemoryVersion]) -> tuple[list[int], dict[str, list[int]]]:
    """Return the index of each key's current version, and those of its older ones by key."""
    by_key: dict[str, list[int]] = {}
    for index, version in enumerate(versions):
        by_key.setdefault(version.key, []).append(index)
    for indices in by_key.values():
        indices.sort(key=lambda index: versions[index].last_seen)
    return [it[-1] for it in by_key.values()], {key: it[:-1] for key, it in by_key.items()}


class _Bench:
    """Judges the memories of an archive, each in the light of all."""

    def __init__(
        self,
        evidence: Sequence[MemoryEvidence],
        duplicates: Mapping[str, tuple[Duplicate, ...]],
        settings: AdviseSettings,
    ) -> None:
        self._evidence = {it.version.key: it for it in evidence}
        self._duplicates = duplicates
        self._settings = settings
        self._level = 1 - settings.confidence
        self._helps = self._discovered(lambda it: it.p_help)
        self._harms = self._discovered(lambda it: it.p_harm)
        self._idle = self._discovered(lambda it: it.p_idle)
        self._merges = self._merged((Basis.CONFIRMED, Basis.HOLD))
        self._textual = self._merged((Basis.TEXT,))
        known = [it for it in evidence if it.error is not None]
        self._spread = median(_spread(it) for it in known) if known else 0.0
        judged = [it.responses / it.conversations for it in evidence if it.conversations]
        self._responses = median(judged) if judged else 0.0

    def advice(self) -> list[Advice]:
        """Return the advice on each memory, in order."""
        return [self._advice(key, it) for key, it in self._evidence.items()]

    def _advice(self, key: str, it: MemoryEvidence) -> Advice:
        known = self._duplicates.get(key, ())
        duplicates = tuple(each for each in known if self._does_the_same(key, each))
        said = Advice(key, Verdict.KEEP, "", it, duplicates)
        helps, stake = self._does_help(key, it), it.largest.signed if it.largest else 0.0
        merged = [other for other, kept in self._merges.items() if kept == key]
        if self._does_harm(key, it) and not (helps and it.mean > 0):
            reason = (
                f"it makes {count_of(it.harmed, 'response')} of {it.responses} less likely, more "
                f"than chance does, one by {-it.worst[0].signed:.1f} nats"
            )
            reason += _of_estimates(it.harmed, it.harmed_estimated)
            return replace(said, verdict=Verdict.HARMFUL, reason=reason)
        if key in self._merges:
            return self._merge(said, self._merges[key])
        if helps:
            reason = (
                f"it helps {count_of(it.helped, 'response')} of {it.responses}, more than chance "
                f"does, one by {stake:.1f} nats"
            )
            reason += _of_estimates(it.helped, it.helped_estimated)
            return replace(said, reason=reason)
        if merged:
            reason = f"it does the work of {_listed(merged)}, too, which can go"
            return replace(said, reason=reason)
        if self._is_idle(key, it):
            if key in self._textual:
                return self._merge(said, self._textual[key])
            hidden_by = [other for other, kept in self._textual.items() if kept == key]
            if hidden_by:
                reason = f"{_listed(hidden_by)} may hide what it does: score with --hold"
                return replace(said, verdict=Verdict.NOT_ENOUGH_EVIDENCE, reason=reason)
            return self._drop(said)
        return self._not_enough(said)

    def _discovered(self, p_value: Callable[[MemoryEvidence], float]) -> set[str]:
        """Return the keys for which the null hypothesis is rejected, all tested together."""
        p_values = np.array([p_value(it) for it in self._evidence.values()])
        found = discoveries(p_values, self._level)
        return {key for key, is_found in zip(self._evidence, found, strict=True) if is_found}

    def _merged(self, bases: Collection[Basis]) -> dict[str, str]:
        """Return the memory to keep for each that another one makes superfluous.

        The one that supports the most responses is kept, of equals the shortest, but rather than
        either one that is missed; a memory is merged only with one that is kept.
        """
        found: dict[str, str] = {}
        for key in sorted(self._evidence, key=self._worth):
            able = [
                it
                for it in self._duplicates.get(key, ())
                if it.basis in bases
                and it.key not in found
                and self._worth(it.key) < self._worth(key)
                and self._does_the_same(key, it)
            ]
            if able:
                best = max(able, key=lambda it: (it.shared, it.similarity))
                found[key] = best.key
        return found

    def _worth(self, key: str) -> tuple[bool, float, float, str]:
        """Return the order in which memories are kept: the first rather than the later ones."""
        it = self._evidence[key]
        supported = max((each.supported for each in self._duplicates.get(key, ())), default=0)
        tokens = math.inf if it.version.tokens is None else it.version.tokens
        return (not self._does_help(key, it), -supported, tokens, key)

    def _does_the_same(self, key: str, it: Duplicate) -> bool:
        """Return whether two memories do the same: each does most of what the other does."""
        if not it.supported:
            return it.basis is not Basis.HOLD
        back = [each for each in self._duplicates.get(it.key, ()) if each.key == key]
        shares = (
            lowest_share(each.shared, each.supported, self._settings.confidence)
            for each in (it, *back)
        )
        return bool(back) and min(shares) >= self._settings.merge_share

    def _does_help(self, key: str, it: MemoryEvidence) -> bool:
        least = it.interval.low if it.interval else 0.0
        most = it.largest.signed if it.largest else 0.0
        return key in self._helps and self._is_material(least, most)

    def _does_harm(self, key: str, it: MemoryEvidence) -> bool:
        least = -it.interval.high if it.interval else 0.0
        most = -it.worst[0].signed if it.worst else 0.0
        return key in self._harms and self._is_material(least, most)

    def _is_material(self, least: float, most: float) -> bool:
        """Return whether an effect that is no chance matters, too.

        ``least`` is the least that its mean may be, ``most`` its largest beyond the limit.
        """
        settings = self._settings
        return most >= settings.stake_nats or (most > 0 and least >= settings.drop_below_nats)

    def _is_idle(self, key: str, it: MemoryEvidence) -> bool:
        """Return whether all that it helps, were it dropped, is below the threshold."""
        return key in self._idle and self._helps_little(it) and not self._may_be_much(it)

    def _helps_little(self, it: MemoryEvidence) -> bool:
        """Return whether it was seen often enough, and helps by less than matters."""
        return (
            it.conversations >= self._settings.min_conversations
            and it.cost_of_dropping is not None
            and it.cost_of_dropping < self._settings.drop_below_nats
        )

    def _may_be_much(self, it: MemoryEvidence) -> bool:
        """Return whether a single help is too large to be passed over, and hardly chance."""
        stake = it.largest.signed if it.largest else 0.0
        return stake >= self._settings.stake_nats and it.p_largest < self._level

    def _merge(self, said: Advice, kept: str) -> Advice:
        it = next(each for each in said.duplicates if each.key == kept)
        if it.basis is Basis.TEXT:
            reason = (
                f"alone it changes nothing, and its words are like those of {kept} "
                f"({it.similarity:.2f}): likely the same, not measured; score with --hold"
            )
        elif it.supported:
            reason = (
                f"{kept} does its work in {it.shared} of the "
                f"{count_of(it.supported, 'response')} that it supports alone beside it"
            )
        else:
            reason = f"{kept} does its work"
        if it.basis is Basis.CONFIRMED:
            reason += "; they were removed together, and missed"
        return replace(said, verdict=Verdict.MERGE, reason=reason, merge_with=kept)

    def _drop(self, said: Advice) -> Advice:
        it = said.evidence
        reason = (
            f"over {count_of(it.conversations, 'conversation')} it helps by "
            f"{max(0.0, it.cost_of_dropping or 0.0):.2f} nats per response at most, and by much "
            "nowhere"
        )
        if it.estimated == it.responses:
            reason += _of_estimates(it.responses, it.estimated)
        elif it.estimated:
            reason += (
                f"; {it.estimated:,} of its {it.responses:,} effects are estimates (≈), not "
                "measured"
            )
        if not it.has_hold:
            reason += "; whether others hide it is not known: score with --hold"
        return replace(said, verdict=Verdict.DROP, reason=reason)

    def _not_enough(self, said: Advice) -> Advice:
        it = said.evidence
        if it.largest is not None and self._may_be_much(it) and self._helps_little(it):
            reason = f"one help of {it.largest.signed:.1f} nats may be no chance: look at it"
            return replace(said, verdict=Verdict.NOT_ENOUGH_EVIDENCE, reason=reason)
        more = self._more_conversations(it)
        seen = f"judged in {count_of(it.conversations, 'conversation')}"
        each = it.responses / it.conversations if it.conversations else self._responses
        return replace(
            said,
            verdict=Verdict.NOT_ENOUGH_EVIDENCE,
            reason=f"{seen}; {more} more would probably do",
            more_conversations=more,
            more_responses=math.ceil(more * each),
        )

    def _more_conversations(self, it: MemoryEvidence) -> int:
        """Return how many more conversations would do with probability ``POWER``.

        The mean is to differ from 0, or from the threshold, whichever is farther, by as many
        standard errors as the confidence takes, and those of the power. The errors shrink with the
        root of the number.
        """
        settings = self._settings
        spread, mean = (self._spread, 0.0) if it.error is None else (_spread(it), it.mean)
        margin = max(abs(mean), settings.drop_below_nats - max(0.0, mean))
        errors = _STANDARD.inv_cdf((1 + settings.confidence) / 2) + _STANDARD.inv_cdf(POWER)
        needed = max(settings.min_conversations, (errors * spread / margin) ** 2)
        return max(1, math.ceil(needed) - it.conversations)


def _spread(it: MemoryEvidence) -> float:
    """Return the standard deviation of a conversation's mean that its error comes from."""
    return (it.error or 0.0) * math.sqrt(it.conversations)


def _of_estimates(effects: int, estimated: int) -> str:
    """Return what is said of effects beyond noise that a screen has estimated, if any are."""
    if not estimated:
        return ""
    if estimated < effects:
        return f"; {estimated:,} of these {effects:,} are estimates (≈), not measured"
    return "; by estimates alone (≈), nothing was measured: score without --screen to be sure"


def _listed(keys: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(keys[:-1]), keys[-1]]))
