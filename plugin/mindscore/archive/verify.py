"""The receipt of advice: the proposed drops, removed together from an archive and measured."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from heapq import nlargest
from typing import Any

from mindhooks import Activity, MindhooksError, Registry, Scorer, ScorerError
from mindhooks.testing import StubMind
from mindscore._util.aio import map_ordered
from mindscore._util.errors import UsageError, format_error
from mindscore._util.text import count_of, shortened
from mindscore.archive.evidence import ArchiveEvidence
from mindscore.archive.known_removals import KnownRemovals
from mindscore.archive.trial import JointScorer, Removed, TokenBudgetError, Trial
from mindscore.config.settings import AdviseSettings, parse_settings
from mindscore.conversation.conversation import Transcript
from mindscore.measure.archive_advice import (
    ArchiveAdvice,
    JointEffect,
    JointRemoval,
    Proposed,
    Receipt,
    in_all,
)
from mindscore.measure.retry import BreakerError

MOST_ROUNDS = 3
"""Times that the whole archive is measured again, each without what was found missing."""

MOST_SEARCHED = 20
"""Conversations of a round, those that lose the most, in which what is missing is looked for."""

MOST_KEPT = 20
"""Memories that are put back in a round."""

MOST_LISTED = 3
"""Failures and names that a line lists."""

Transcripts = Callable[[], Iterable[Transcript]]
"""Yields the conversations of an archive; called once for each round."""


@dataclass(slots=True)
class _Measured:
    """The findings of a pass: the sums of each conversation, and what was not measured."""

    removed: dict[str, JointRemoval] = field(default_factory=dict)
    losing: dict[str, Transcript] = field(default_factory=dict)
    edited: set[str] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)
    with_alone: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    present: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
    too_long: int = 0
    stopped: str | None = None


async def verified(
    advice: ArchiveAdvice,
    evidence: ArchiveEvidence,
    tables: Mapping[str, Any],
    transcripts: Transcripts,
    *,
    max_tokens: int | None = None,
    activity: Activity,
    unread: Sequence[str] = (),
    kept: Callable[[], None] = lambda: None,
) -> Receipt:
    """Return the receipt of ``advice``: what it costs to remove what it proposes, all at once.

    What is missed is put back, the most missed first, and the rest measured again. ``max_tokens``
    bounds what the scorer is sent; a conversation that does not fit is not measured. ``unread`` are
    lines on files that cannot be read, to which ``transcripts`` may add.

    What was measured is kept in the store until all of it is: where a verification was cut off, the
    same one goes on. ``kept`` is called for each measurement that is. The receipt is kept, too.

    Raises:
        UsageError: the scorer's model is not the one that gave the advice, or nothing is proposed.
        ScorerError: not one conversation could be measured.
        ConfigError: the scorer cannot be built because of the configuration.
    """
    drops = advice.drops
    if not drops:
        raise UsageError("--verify: nothing is proposed to be dropped, so there is nothing to test")
    async with Registry(StubMind(), tables) as registry:
        scorer = await registry.scorer()
        _require_model(advice, scorer)
        known = KnownRemovals(tables, scorer.model, drops, kept)
        joint = JointScorer(tables, scorer, evidence.limits(), known, max_tokens)
        settings = parse_settings(tables)
        work = _Verification(joint, drops, transcripts, settings.advise, activity)
        receipt = await work.receipt(settings.server.concurrency)
        if unread:
            lines = (*receipt.unmeasured, *unread)
            receipt = replace(receipt, unmeasured=lines, is_complete=False)
        await known.finish(receipt)
        return receipt


def _require_model(advice: ArchiveAdvice, scorer: Scorer) -> None:
    if scorer.model != advice.model:
        raise UsageError(
            f"--verify: the advice is by {advice.model}, and the scorer is {scorer.model}: choose "
            "the same with --model, or with --set server.model"
        )


class _Verification:
    """Measures what is proposed, and looks for what is missed."""

    def __init__(
        self,
        scorer: JointScorer,
        proposed: Mapping[str, Proposed],
        transcripts: Transcripts,
        settings: AdviseSettings,
        activity: Activity,
    ) -> None:
        self._scorer = scorer
        self._proposed = proposed
        self._transcripts = transcripts
        self._settings = settings
        self._activity = activity
        self._kept: dict[str, JointEffect] = {}

    async def receipt(self, at_once: int) -> Receipt:
        """Measure, put back what is missed, and measure again."""
        proposed = tuple(self._proposed)
        found = await self._measured(None, at_once)
        if not found.removed:
            raise ScorerError(f"--verify: {_nothing(found)}")
        rounds = [in_all(proposed, found.removed.values())]
        lines = []
        for _ in range(MOST_ROUNDS):
            if found.stopped or not self._is_missed(rounds[-1]):
                break
            put_back, stopped = await self._search(found)
            if stopped:
                found.stopped = stopped
            if not put_back:
                lines += [NOT_FOUND] if not stopped else []
                break
            found = await self._measured(found, at_once)
            rounds.append(in_all(self._left, found.removed.values()))
        known = self._scorer.known
        return Receipt(
            proposed=proposed,
            kept=tuple(self._kept),
            kept_for=self._kept,
            rounds=tuple(rounds),
            conversations=len(found.removed),
            calls=known.calls,
            prompt_tokens=known.prompt_tokens,
            computed_tokens=known.computed_tokens,
            unmeasured=(*lines, *_unmeasured(proposed, found)),
            is_complete=not (found.stopped or found.too_long or found.failed or found.stale),
            drops=self._proposed,
            verified_at=time.time(),
        )

    @property
    def _left(self) -> tuple[str, ...]:
        """The keys that are still removed."""
        return tuple(key for key in self._proposed if key not in self._kept)

    def _is_missed(self, removal: JointRemoval) -> bool:
        """Return whether what is lost matters: one help of the stake, or much on average."""
        most = removal.worst[0].signed if removal.worst else 0.0
        each = removal.lost / max(1, removal.responses)
        return most >= self._settings.stake_nats or each >= self._settings.drop_below_nats

    # -- a pass over the archive -----------------------------------------------------------------

    async def _measured(self, before: _Measured | None, at_once: int) -> _Measured:
        """Remove what is left from each conversation; one that lacks nothing new is as before."""
        found = _Measured() if before is None else before
        again = before is not None
        done = 0
        async with aclosing(self._trials(self._wanted(found, again=again), at_once)) as trials:
            async for transcript, removed in trials:
                done += 1
                self._activity.update(f"verify: conversation {done}", done)
                if again and isinstance(removed, MindhooksError | TokenBudgetError):
                    found.stale.add(transcript.id)
                if isinstance(removed, BreakerError):
                    found.stopped = format_error(removed)
                    break
                if isinstance(removed, TokenBudgetError):
                    found.too_long += not again
                elif isinstance(removed, MindhooksError):
                    found.failed[transcript.id] = format_error(removed)
                elif isinstance(removed, BaseException):
                    raise removed
                else:
                    self._note(found, transcript, *removed)
        return found

    def _wanted(self, found: _Measured, *, again: bool) -> Iterator[Transcript]:
        """Yield the conversations to measure, each once; ``again``: those that got a memory back.

        Another that still loses something is kept at hand.
        """
        found.losing.clear()
        known = {it: set(removal.keys) for it, removal in found.removed.items()}
        seen = set[str]()
        for it in self._transcripts():
            if it.id in seen:
                continue
            seen.add(it.id)
            if not again or known.get(it.id, set()) & self._kept.keys():
                yield it
            elif it.id in known:
                self._keep_losing(found, it)

    async def _trials(
        self, transcripts: Iterable[Transcript], at_once: int
    ) -> AsyncGenerator[tuple[Transcript, tuple[Trial, Removed] | BaseException]]:
        async def measure(transcript: Transcript) -> tuple[Trial, Removed]:
            async with self._scorer.open(transcript, self._proposed) as trial:
                return trial, await trial.remove(self._left)

        async with aclosing(map_ordered(measure, transcripts, at_once)) as turns:
            async for transcript, task in turns:
                yield transcript, await task

    def _note(self, found: _Measured, transcript: Transcript, trial: Trial, what: Removed) -> None:
        found.edited.update(trial.edited)
        found.alone.update(trial.alone)
        if trial.alone:
            found.with_alone.add(transcript.id)
        if trial.unread is not None:
            found.unread.add(transcript.id)
        if not trial.keys:
            return
        found.removed[transcript.id] = what.sums
        found.present.update(what.sums.keys)
        self._keep_losing(found, transcript)

    def _keep_losing(self, found: _Measured, transcript: Transcript) -> None:
        """Hold a conversation that loses something, and never many."""
        if found.removed[transcript.id].missed:
            found.losing[transcript.id] = transcript
            if len(found.losing) > 2 * MOST_SEARCHED:
                found.losing = {it: found.losing[it] for it in _most_losing(found)}

    # -- what is missed --------------------------------------------------------------------------

    async def _search(self, found: _Measured) -> tuple[bool, str | None]:
        """Put back the memories that the conversations which lose the most miss.

        Return whether there were any, and what ended the search early.
        """
        before = len(self._kept)
        for id_ in _most_losing(found):
            try:
                async with self._scorer.open(found.losing[id_], self._proposed) as trial:
                    await self._put_back(trial, before + MOST_KEPT)
            except TokenBudgetError:
                return len(self._kept) > before, "the search ended at --max-tokens"
            except MindhooksError as error:
                return len(self._kept) > before, f"the search failed: {format_error(error)}"
        return len(self._kept) > before, None

    async def _put_back(self, trial: Trial, most: int) -> None:
        """Put back what one conversation misses, the most missed memory first."""
        without = await trial.remove(self._left)
        while len(self._kept) < most and self._is_missed(without.sums):
            key = await self._most_missed(trial)
            with_it = await trial.remove(set(self._left) - {key})
            back = _most_recovered(without, with_it)
            if back is None or without.sums.lost - with_it.sums.lost <= back.limit:
                return
            self._kept[key] = back
            self._activity.update(f"verify: missed {key}")
            without = with_it

    async def _most_missed(self, trial: Trial) -> str:
        """Return the memory whose return recovers the most, found by halving their number."""
        left = set(self._left)
        able = [key for key in trial.keys if key in left]
        while len(able) > 1:
            halves = able[: len(able) // 2], able[len(able) // 2 :]
            losses = []
            for half in halves:
                losses.append((await trial.remove(left - set(half))).sums.lost)
                if not losses[-1]:
                    break
            able = halves[losses.index(min(losses))]
        return able[0]


NOT_FOUND = "what is missed comes back with no single memory"


def _most_losing(found: _Measured) -> list[str]:
    """Return the conversations that lose the most, the most losing first."""
    return nlargest(MOST_SEARCHED, found.losing, key=lambda it: found.removed[it].lost)


def _most_recovered(without: Removed, with_it: Removed) -> JointEffect | None:
    """Return the response that a memory's return helps most, and the nats that it recovers."""
    after = {it.place.node_id: it.signed for it in with_it.effects}
    recovered = [
        JointEffect(it.place, it.signed - after.get(it.place.node_id, 0.0), it.limit)
        for it in without.effects
        if it.signed > it.limit
    ]
    best = max(recovered, key=lambda it: it.signed, default=None)
    return None if best is None or best.signed <= 0 else best


def _nothing(found: _Measured) -> str:
    """Return why not one conversation was measured."""
    if found.stopped:
        return found.stopped
    if found.failed:
        return next(iter(found.failed.values()))
    if found.too_long:
        return "not one conversation fits in --max-tokens"
    return "no conversation there has any of the memories that are proposed to go, as they are now"


def _unmeasured(proposed: tuple[str, ...], found: _Measured) -> list[str]:
    """Return lines on what the receipt does not rest on."""
    lines = []
    if found.stopped:
        lines.append(f"ended early: {found.stopped}")
    if found.too_long:
        conversations = count_of(found.too_long, "conversation")
        lines.append(f"{conversations} not measured: --max-tokens does not allow for more")
    for id_, error in list(found.failed.items())[:MOST_LISTED]:
        lines.append(f"conversation {shortened(id_, 40)} failed: {error}")
    if len(found.failed) > MOST_LISTED:
        lines.append(f"{count_of(len(found.failed) - MOST_LISTED, 'more conversation')} failed")
    if found.unread:
        conversations = count_of(len(found.unread), "conversation")
        lines.append(f"{conversations} end beyond what the model reads: the rest is not measured")
    if found.edited:
        texts = count_of(len(found.edited), "memory", "memories")
        lines.append(f"earlier texts of {texts} were left where they stand")
    if found.alone:
        copies = count_of(len(found.alone), "copy", "copies")
        where = count_of(len(found.with_alone), "conversation")
        lines.append(f"{copies} to merge stayed in {where} without the memory to merge with")
    if found.stale:
        conversations = count_of(len(found.stale), "conversation")
        lines.append(f"{conversations} not measured again with what is put back: as before it")
    absent = [key for key in proposed if key not in found.present and key not in found.alone]
    if absent:
        named = ", ".join(shortened(key, 40) for key in absent[:MOST_LISTED])
        more = f" and {len(absent) - MOST_LISTED:,} more" * (len(absent) > MOST_LISTED)
        lines.append(f"in none of these conversations: {named}{more}")
    return lines
