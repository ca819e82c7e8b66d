"""Leave-one-out: score the responses of a window with a memory and without it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection

from mindhooks import Context, ResponseDivergence, Scorer
from mindscore._util.aio import Pace
from mindscore.config.settings import ServerSettings
from mindscore.measure import memories
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache, Usage
from mindscore.measure.divergence import (
    TokenLogprobs,
    Totals,
    divergences,
    token_differences,
)
from mindscore.measure.noise import NoiseFloor
from mindscore.measure.prompts import prompt_for
from mindscore.measure.retry import Retry

Divergences = tuple[ResponseDivergence, ...]


class LeaveOneOut:
    """Compares windows of a conversation with memories and without.

    A baseline is scored before what is compared with it, so that a server that caches prefixes has
    its prefixes by then.
    """

    def __init__(self, scorer: CachedScorer, context: Context, noise: NoiseFloor) -> None:
        self._scorer = scorer
        self._context = context
        self._noise = noise
        self._turns: dict[range, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._failed: dict[range, Exception] = {}
        self._baselines: dict[range, Totals] = {}
        self._token_logprobs: dict[range, TokenLogprobs] = {}
        self._pace = Pace()

    async def baseline(self, window: range, asked: Collection[str]) -> Totals:
        """Return the totals, by node id, of the responses ``asked`` with all memories.

        A window that failed is not asked for again: whatever is compared with it fails alike.

        Raises:
            ScorerError: the scorer failed.
        """
        async with self._turns[window]:
            if window in self._failed:
                raise self._failed[window]
            if (known := self._baselines.get(window, {})).keys() >= set(asked):
                # A prompt may be long: it is not built once more for each memory.
                return known
            await self._pace.yield_to_loop()
            prompt = prompt_for(self._context, window, memories.skip_none, asked)
            try:
                totals = await self._scorer.score(prompt)
            except Exception as error:
                self._failed[window] = error
                raise
            await self._noise.measure(prompt, totals)
            self._baselines[window] = totals
            self._token_logprobs[window] = self._scorer.token_logprobs(prompt)
            return totals

    async def drop(
        self, window: range, skip: memories.Skip, judging: Collection[str] = ()
    ) -> Divergences:
        """Return the effect of all that ``skip`` names on each response in ``window``.

        It is the response's total with all memories, less that without those. ``judging`` are
        further responses for which the same baseline will be needed.

        Raises:
            ScorerError: the scorer failed.
        """
        context = self._context
        await self._pace.yield_to_loop()
        asked = memories.responses_after_change(context, window, skip)
        with_ = await self.baseline(window, {*asked, *judging})
        await self._pace.yield_to_loop()
        prompt = prompt_for(context, window, skip, asked)
        without = await self._scorer.score(prompt)
        by_token = self._token_logprobs.get(window, {})
        tokens = token_differences(by_token, self._scorer.token_logprobs(prompt))
        responses = memories.responses(context, window, skip)
        return divergences(responses, with_, without, asked, self._noise.spread, tokens)

    async def hold(self, window: range, key: str, judging: Collection[str] = ()) -> Divergences:
        """Return the effect of the memory ``key`` alone: with it and no other, less with none.

        Raises:
            ScorerError: the scorer failed.
        """
        context = self._context
        await self._pace.yield_to_loop()
        responses = memories.responses(context, window, memories.skip_all)
        asked = memories.responses_after_change(
            context, window, memories.skip_all_except(key), memories.skip_all
        )
        bare = prompt_for(context, window, memories.skip_all, {*asked, *judging})
        without = await self._scorer.score(bare)
        await self._pace.yield_to_loop()
        alone = prompt_for(context, window, memories.skip_all_except(key), asked)
        with_ = await self._scorer.score(alone)
        return divergences(responses, with_, without, asked, self._noise.spread, {})


async def score_memory(
    context: Context, key: str, scorer: Scorer, *, response_window: int = 50
) -> float:
    """Return the sum of the divergences, in nats, of the responses after the memory ``key``.

    Those are the next ``response_window`` ones from its first position; 0.0 if the memory, or a
    response after it, is not there.

    Raises:
        ScorerError: the scorer failed.
    """
    position = next((m.position for m in memories.find_memories(context) if m.key == key), None)
    if position is None:
        return 0.0
    window = memories.response_window(context, position, response_window)
    cached = CachedScorer(scorer, Usage(), ScoreCache(), Retry(ServerSettings()))
    compared = LeaveOneOut(cached, context, NoiseFloor(cached, 0))
    return sum(it.divergence for it in await compared.drop(window, memories.skip_only(key)))
