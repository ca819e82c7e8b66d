"""One conversation of an archive without several of its memories, by the ordinary scorer path."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from mindhooks import Context, Registry, Scorer, ScorerError, WirePrompt
from mindscore._util.text import one_line
from mindscore.archive.known_removals import KnownRemovals
from mindscore.archive.pass_record import transcript_digest
from mindscore.config.settings import parse_settings
from mindscore.conversation.conversation import Transcript
from mindscore.measure.archive_advice import (
    JointEffect,
    JointRemoval,
    Proposed,
    ResponsePlace,
    joint_removal,
)
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache, weights_of
from mindscore.measure.divergence import noise_limit
from mindscore.measure.leave_one_out import LeaveOneOut, NoiseFloor
from mindscore.measure.memories import responses_after_change, skip_none, text_hashes, whole
from mindscore.measure.prompts import prompts_for, whole_prompt
from mindscore.measure.retry import Retry
from mindscore.measure.usage import Usage
from mindscore.scorers.selftest import ensure_tested
from mindscore.session.session import Session
from mindscore.store import MeasuredRemoval, MeasuredResponse, RemovalName
from mindscore.store.archive import storable_text

TITLE = 60

REPLACED = "the model's weights were replaced while advice was verified: verify it again"


class TokenBudgetError(Exception):
    """The measurement takes more tokens than are left."""


class JointScorer:
    """A scorer for many trials, with the tokens that it may still be sent.

    ``limits`` are the responses' noise limits, by conversation and node id, where they are known.
    ``known`` is what an unfinished verification has measured.
    """

    def __init__(
        self,
        tables: Mapping[str, Any],
        scorer: Scorer,
        limits: Mapping[tuple[str, str], float],
        known: KnownRemovals,
        max_tokens: int | None,
    ) -> None:
        self.limits = limits
        self.known = known
        self._tables = tables
        self._settings = parse_settings(tables)
        self._scorer = scorer
        self._retry = Retry(self._settings.server)
        self._left = max_tokens
        self._weights: str | None = None

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
            MindhooksError: the settings are wrong.
        """
        session = Session(transcript)
        async with Registry(session, self._tables, scorer=self._scorer) as registry:
            session.listen(registry)
            cached = CachedScorer(self._scorer, Usage(), ScoreCache(), self._retry)
            noise = NoiseFloor(cached, self._settings.memory.noise_repeats)
            yield Trial(self, session, cached, noise, proposed)

    async def weights(self) -> str | None:
        """Return what tells the scorer's weights from others; ``None``: it is not known.

        Raises:
            ScorerError: they are others than at the last time.
        """
        found = await weights_of(self._scorer, self._settings.server, self._retry)
        if self._weights not in (None, found):
            raise ScorerError(REPLACED)
        self._weights = found
        return found

    async def test(self, context: Context) -> None:
        """Test the scorer, unless it has passed.

        Raises:
            ScorerError: it fails.
        """
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
        self._digest = transcript_digest(self._transcript)
        self._baseline: dict[str, int] | None = None

    async def remove(self, keys: Collection[str]) -> Removed:
        """Return what the conversation loses without those of ``keys`` that it has.

        Raises:
            TokenBudgetError: it would take more tokens than are left.
            MindhooksError: the conversation cannot be rendered, or the scorer failed.
        """
        gone = frozenset(keys) & frozenset(self.keys)
        if not gone:
            return Removed(JointRemoval(()), ())
        weights = await self._scorer.weights()
        found = await self._scorer.known.find(self._name(gone, weights))
        if found is None:
            found = await self._measured(gone)
            # Asked for once the server has answered: some say it in their answers alone.
            name = self._name(gone, await self._scorer.weights())
            await self._scorer.known.add(name, found)
        self.unread = self.unread or found.unread
        names = tuple(key for key in self.keys if key in gone)
        effects = tuple(
            JointEffect(self._place(it), it.signed, self._limit(it.node_id, it.noise, len(gone)))
            for it in found.responses
        )
        return Removed(joint_removal(names, effects, found.tokens), effects)

    def _name(self, gone: frozenset[str], weights: str | None) -> RemovalName | None:
        """Return the name of a removal by all that it rests on; ``None``: that is not known."""
        if weights is None:
            return None
        facts = (self._digest, weights, self._noise.repeats, sorted(self.keys), sorted(gone))
        return self._scorer.known.name(self.id, facts)

    async def _measured(self, gone: frozenset[str]) -> MeasuredRemoval:
        usage = self._cached.usage = Usage()
        try:
            measured = await self._effects(gone)
        finally:
            # Also of one that has failed: its calls were made.
            self._scorer.known.count(usage)
        return replace(
            measured,
            calls=usage.calls,
            prompt_tokens=usage.prompt_tokens,
            computed_tokens=usage.computed_tokens,
        )

    async def _effects(self, gone: frozenset[str]) -> MeasuredRemoval:
        every = frozenset(self.keys)
        # A message that prints many memories is rendered without these sets alone.
        context = await self._session.context_without((gone, every))
        window, skip = whole(context), gone.__contains__
        asked = responses_after_change(context, window, skip)
        if not asked:
            return MeasuredRemoval()
        await self._scorer.test(context)
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
        measured = [it for it in row if it.node_id in asked]
        return MeasuredRemoval(
            responses=tuple(
                MeasuredResponse(it.node_id, it.entry_idx, it.signed, it.noise) for it in measured
            ),
            tokens=sum(self._baseline[it.node_id] - starts[it.node_id] for it in measured),
            unread=compared.unread.remark if compared.unread else None,
        )

    def _limit(self, node_id: str, noise: float | None, removed: int) -> float:
        """Return the nats within which the effect of ``removed`` memories may be chance.

        Chance effects of several memories add up as a random walk does: with the root of their
        number.
        """
        spread = self._scorer.limits.get((self.id, node_id), 0.0) * math.sqrt(removed)
        return noise_limit(noise, spread)

    def _place(self, it: MeasuredResponse) -> ResponsePlace:
        said = (each.text for each in self._transcript.conversation if each.role == "user")
        when = self._transcript.conversation[it.entry_idx].timestamp_ns
        return ResponsePlace(
            conversation=self.id,
            title=storable_text(one_line(next(said, ""), TITLE)),
            source=storable_text(str(self._transcript.file)),
            node_id=it.node_id,
            entry_idx=it.entry_idx,
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
