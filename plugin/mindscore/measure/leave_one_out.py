"""What one memory did to the responses of a window: two prompts, two scorings."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection

from mindhooks import Context, ResponseDivergence, Scorer
from mindscore._util.aio import Pace
from mindscore.config.settings import ServerSettings
from mindscore.measure import memories
from mindscore.measure.cached_scorer import Breaker, CachedScorer, ScoreCache, Usage
from mindscore.measure.divergence import Totals, Values, divergences, token_differences
from mindscore.measure.noise import NoiseFloor
from mindscore.measure.prompts import prompt_for

Divergences = tuple[ResponseDivergence, ...]


class LeaveOneOut:
    """Compares windows of a conversation with memories and without.

    What is compared with a baseline is scored after it: a server that keeps prefixes has them then.
    """

    def __init__(self, meter: CachedScorer, context: Context, noise: NoiseFloor) -> None:
        self._meter = meter
        self._context = context
        self._noise = noise
        self._turns: dict[range, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._failed: dict[range, Exception] = {}
        self._baselines: dict[range, Totals] = {}
        self._values: dict[range, Values] = {}
        self._pace = Pace()

    async def baseline(self, window: range, asked: Collection[str]) -> Totals:
        """The totals, by node id, of the responses ``asked`` with all memories.

        One that failed is not asked again: all that is compared with it fails for the same reason.

        Raises:
            ScorerError: the scorer failed.
        """
        async with self._turns[window]:
            if window in self._failed:
                raise self._failed[window]
            if (known := self._baselines.get(window, {})).keys() >= set(asked):
                # Not made and looked up once more for each memory: a prompt may be long.
                return known
            await self._pace.yield_to_loop()
            prompt = prompt_for(self._context, window, memories.skip_none, asked)
            try:
                totals = await self._meter.totals(prompt)
            except Exception as error:
                self._failed[window] = error
                raise
            await self._noise.measure(prompt, totals)
            self._baselines[window] = totals
            self._values[window] = self._meter.values(prompt)
            return totals

    async def drop(
        self, window: range, skip: memories.Skip, judging: Collection[str] = ()
    ) -> Divergences:
        """What all that ``skip`` names did to each response in ``window``: with all, less without.

        ``judging`` are further responses for which the same baseline will be wanted.

        Raises:
            ScorerError: the scorer failed.
        """
        context = self._context
        await self._pace.yield_to_loop()
        asked = memories.responses_after_change(context, window, skip)
        with_ = await self.baseline(window, {*asked, *judging})
        await self._pace.yield_to_loop()
        prompt = prompt_for(context, window, skip, asked)
        without = await self._meter.totals(prompt)
        with_values = self._values.get(window, {})
        tokens = token_differences(with_values, self._meter.values(prompt))
        responses = memories.responses(context, window, skip)
        return divergences(responses, with_, without, asked, self._noise.spread, tokens)

    async def hold(self, window: range, key: str, judging: Collection[str] = ()) -> Divergences:
        """What the memory ``key`` does alone: with it and no other, less with none.

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
        without = await self._meter.totals(bare)
        await self._pace.yield_to_loop()
        alone = prompt_for(context, window, memories.skip_all_except(key), asked)
        with_ = await self._meter.totals(alone)
        return divergences(responses, with_, without, asked, self._noise.spread, {})


async def score_memory(
    context: Context, key: str, scorer: Scorer, *, response_window: int = 50
) -> float:
    """The sum of what the memory ``key`` did to the responses after it, in nats.

    The responses are the next ``response_window`` ones from the memory's first position. 0.0 when
    the memory, or a response after it, is not there.

    Raises:
        ScorerError: the scorer failed.
    """
    position = next((m.position for m in memories.find_memories(context) if m.key == key), None)
    if position is None:
        return 0.0
    window = memories.response_window(context, position, response_window)
    meter = CachedScorer(scorer, Usage(), ScoreCache(), Breaker(ServerSettings().breaker_failures))
    compared = LeaveOneOut(meter, context, NoiseFloor(meter, 0))
    return sum(it.divergence for it in await compared.drop(window, memories.skip_only(key)))
