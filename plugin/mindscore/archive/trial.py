"""One conversation of an archive without several of its memories, by the ordinary scorer path."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mindhooks import Context, Registry, Scorer, WirePrompt
from mindscore._util.text import one_line
from mindscore.config.settings import parse_settings
from mindscore.conversation.conversation import Transcript
from mindscore.measure.archive_advice import (
    JointEffect,
    JointRemoval,
    ResponsePlace,
    joint_removal,
)
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache, Usage
from mindscore.measure.divergence import noise_limit
from mindscore.measure.leave_one_out import LeaveOneOut, NoiseFloor
from mindscore.measure.memories import responses_after_change, skip_none, text_hashes, whole
from mindscore.measure.prompts import prompts_for, whole_prompt
from mindscore.measure.retry import Retry
from mindscore.scorers.selftest import ensure_tested
from mindscore.session.session import Session

TITLE = 60


@dataclass(frozen=True, slots=True)
class Proposed:
    """A memory that may go: a hash of the text that was judged, empty where that is not known.

    ``instead`` is the memory that does its work: where that is not in the context, it stays.
    """

    text_hash: str
    instead: str | None = None


class TokenBudgetError(Exception):
    """The measurement takes more tokens than are left."""


class JointScorer:
    """A scorer for many trials: what it has used, and how many tokens it may still be sent.

    ``limits`` are the responses' noise limits, by conversation and node id, where they are known.
    """

    def __init__(
        self,
        tables: Mapping[str, Any],
        scorer: Scorer,
        limits: Mapping[tuple[str, str], float],
        max_tokens: int | None,
    ) -> None:
        self.usage = Usage()
        self.limits = limits
        self._tables = tables
        self._settings = parse_settings(tables)
        self._scorer = scorer
        self._retry = Retry(self._settings.server)
        self._left = max_tokens

    def take(self, tokens: int) -> None:
        """Count tokens that are about to be sent.

        Raises:
            TokenBudgetError: there are not as many left.
        """
        if self._left is None:
            return
        if tokens > self._left:
            raise TokenBudgetError
        self._left -= tokens

    @asynccontextmanager
    async def open(
        self, transcript: Transcript, proposed: Mapping[str, Proposed]
    ) -> AsyncIterator[Trial]:
        """Open the trial of one conversation, from which memories are ``proposed`` to go, by key.

        Raises:
            MindhooksError: the conversation cannot be rendered, or the scorer fails its self-test.
        """
        session = Session(transcript)
        async with Registry(session, self._tables, scorer=self._scorer) as registry:
            session.listen(registry)
            cached = CachedScorer(self._scorer, self.usage, ScoreCache(), self._retry)
            noise = NoiseFloor(cached, self._settings.memory.noise_repeats)
            trial = Trial(self, session, cached, noise, proposed)
            if trial.keys:
                await self._test(await session.context_without(()))
            yield trial

    async def _test(self, context: Context) -> None:
        """Test the scorer, unless it has passed."""
        await ensure_tested(self._scorer, self._settings.server, await whole_prompt(context))


@dataclass(frozen=True, slots=True)
class Removed:
    """The effect of removing some memories from one conversation, with that on each response."""

    sums: JointRemoval
    effects: tuple[JointEffect, ...]


class Trial:
    """One conversation: measures it without any of its memories that may go.

    ``keys`` are those. Others that are proposed stay: ``edited`` ones, of which it has another text
    than the one judged, and ``alone`` ones, without the memory that does their work.
    """

    def __init__(
        self,
        scorer: JointScorer,
        session: Session,
        cached: CachedScorer,
        noise: NoiseFloor,
        proposed: Mapping[str, Proposed],
    ) -> None:
        self._transcript = session.transcript
        known = text_hashes(self._transcript)
        mine = {key: it for key, it in proposed.items() if key in known}
        self.edited = tuple(key for key, it in mine.items() if it.text_hash not in (known[key], ""))
        self.alone = tuple(
            key for key, it in mine.items() if it.instead is not None and it.instead not in known
        )
        stay = {*self.edited, *self.alone}
        self.keys = tuple(key for key in mine if key not in stay)
        self.id = session.transcript.id
        self.unread: str | None = None
        """A line on the responses that the model does not read, if there are any."""
        self._scorer = scorer
        self._session = session
        self._cached = cached
        self._noise = noise
        self._baseline: dict[str, int] | None = None
        self._known: dict[frozenset[str], Removed] = {}

    async def remove(self, keys: Collection[str]) -> Removed:
        """Return what the conversation loses without those of ``keys`` that it has.

        Raises:
            TokenBudgetError: it would take more tokens than are left.
            ScorerError: the scorer failed.
        """
        gone = frozenset(keys) & frozenset(self.keys)
        if gone not in self._known:
            self._known[gone] = await self._measured(gone)
        return self._known[gone]

    async def _measured(self, gone: frozenset[str]) -> Removed:
        every = frozenset(self.keys)
        # A message that prints many memories is rendered without these sets alone.
        context = await self._session.context_without((gone, every))
        window, skip = whole(context), gone.__contains__
        names = tuple(key for key in self.keys if key in gone)
        asked = responses_after_change(context, window, skip)
        if not asked:
            return Removed(JointRemoval(names), ())
        # One baseline for all that is removed of this conversation.
        judging = responses_after_change(context, window, every.__contains__)
        if self._baseline is None:
            prompts = await prompts_for(context, window, skip_none, judging)
            self._scorer.take((1 + self._noise.repeats) * _tokens(prompts))
            self._baseline = _starts(prompts)
        prompts = await prompts_for(context, window, skip, asked)
        self._scorer.take(_tokens(prompts))
        starts = _starts(prompts)
        # The baseline is scored once, whatever is compared with it: it is in the cache.
        compared = LeaveOneOut(self._cached, context, self._noise)
        row = await compared.drop(window, skip, judging)
        self.unread = self.unread or (compared.unread.remark if compared.unread else None)
        measured = [it for it in row if it.node_id in asked]
        effects = tuple(
            JointEffect(
                self._place(context, it.node_id, it.entry_idx),
                it.signed,
                self._limit(it.node_id, it.noise, len(gone)),
            )
            for it in measured
        )
        saved = sum(self._baseline[it.node_id] - starts[it.node_id] for it in measured)
        return Removed(joint_removal(names, effects, saved), effects)

    def _limit(self, node_id: str, noise: float | None, removed: int) -> float:
        """Return the nats within which the effect of ``removed`` memories may be chance.

        Chance effects of several memories add up as a random walk does: with the root of their
        number.
        """
        spread = self._scorer.limits.get((self.id, node_id), 0.0) * math.sqrt(removed)
        return noise_limit(noise, spread)

    def _place(self, context: Context, node_id: str, entry_idx: int) -> ResponsePlace:
        said = (it.text for it in self._transcript.conversation if it.role == "user")
        when = context.conversation[entry_idx].timestamp_ns
        return ResponsePlace(
            conversation=self.id,
            title=one_line(next(said, ""), TITLE),
            source=str(self._transcript.file),
            node_id=node_id,
            entry_idx=entry_idx,
            responded_at=when / 1e9 if when else None,
        )


def _tokens(prompts: Collection[WirePrompt]) -> int:
    return sum(len(it.tokens) for it in prompts)


def _starts(prompts: Collection[WirePrompt]) -> dict[str, int]:
    """Return the number of tokens before each response, by node id."""
    return {
        node_id: start
        for it in prompts
        for (start, _), node_id in zip(it.ranges, it.node_ids, strict=True)
    }
