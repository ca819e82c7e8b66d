"""Call a scorer: cache and check its answers, repeat what failed, count what a run has used."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b

from mindhooks import (
    Generated,
    RangeScore,
    Registry,
    Scorer,
    ScorerCapabilities,
    ScorerError,
    ScoreResult,
    WirePrompt,
)
from mindscore.config.settings import ServerSettings
from mindscore.measure.divergence import (
    ROUNDING,
    TokenLogprobs,
    Totals,
    check_answers,
    check_generated,
)
from mindscore.measure.prompts import ask_only
from mindscore.measure.retry import Retry, awaited
from mindscore.measure.usage import Usage, count_sent

SHARED_S = 3600
"""Seconds for which flows share a cache: a server may get another model while an agent lives."""

Key = tuple[bytes, int]
Answer = ScoreResult | Sequence[Sequence[RangeScore]]


class ScoreCache:
    """Total log-probabilities by what determines them: the prompt up to the response's end.

    It has the log-probability of each token too where a ``CachedScorer`` was to keep them.
    ``adapter`` is the one that the model had.
    """

    MAX_ENTRIES = 200_000

    def __init__(self, adapter: str | None = None) -> None:
        self.started = time.monotonic()
        self.adapter = adapter
        self.flows: set[str] = set()
        self.pending: dict[Key, asyncio.Future[None]] = {}
        self._totals: dict[Key, float] = {}
        self._token_logprobs: dict[Key, array[float] | None] = {}

    def get(self, key: Key) -> float | None:
        """Return the total of a response, or ``None`` if it is not known."""
        return self._totals.get(key)

    def add(self, key: Key, total: float) -> None:
        """Keep a total, and drop the oldest where there are too many."""
        if len(self._totals) >= self.MAX_ENTRIES:
            oldest = next(iter(self._totals))
            del self._totals[oldest]
            self._token_logprobs.pop(oldest, None)
        self._totals[key] = total

    def token_logprobs(self, key: Key) -> array[float] | None:
        """Return the log-probability of each token, or ``None`` if they are not known."""
        return self._token_logprobs.get(key)

    def has_token_logprobs(self, key: Key) -> bool:
        """Return whether they were asked for; the scorer may have given totals only."""
        return key in self._token_logprobs

    def add_token_logprobs(self, key: Key, logprobs: Sequence[float] | None) -> None:
        """Keep the addends of a response's total; ``None``: the scorer gives totals only."""
        self._token_logprobs[key] = None if logprobs is None else array("d", logprobs)


def shared_cache(registry: Registry, flow: str, scorer: Scorer) -> ScoreCache:
    """Return the cache that the flows of one host share.

    A new one is made when a flow runs a second time (it is to measure again), after an hour, and
    when the model may have other weights under the same name.
    """
    capabilities = ScorerCapabilities.of(scorer)
    cache: ScoreCache | None = registry.stash.get(ScoreCache)
    if (
        cache is None
        or flow in cache.flows
        or cache.adapter != capabilities.adapter
        or capabilities.swaps_adapters
        or time.monotonic() - cache.started > SHARED_S
    ):
        cache = registry.stash[ScoreCache] = ScoreCache(capabilities.adapter)
    cache.flows.add(flow)
    return cache


class CachedScorer:
    """A scorer whose calls are repeated by ``retry``, counted in ``usage``, checked and cached.

    A response in ``cache`` is not asked for again, and one that another prompt is asking for is
    waited for. With ``tokens``, the log-probability of each token is cached too.
    """

    def __init__(
        self,
        scorer: Scorer,
        usage: Usage,
        cache: ScoreCache,
        retry: Retry,
        *,
        tokens: bool = False,
    ) -> None:
        self.scorer = scorer
        self.usage = usage
        self._cache = cache
        self._retry = retry
        self._tokens = tokens
        self._hides_leads = True

    async def score(self, prompt: WirePrompt) -> Totals:
        """Return the prompt's totals by node id; only ranges that are not cached are asked for.

        Responses that end beyond the tokens that the model reads are left out.

        Raises:
            ScorerError: the scorer failed, or its answer does not fit what was asked.
            BreakerError: too many calls in a row have failed.
        """
        readable = self._readable(prompt)
        try:
            return await self._totals(readable)
        except ScorerError:
            # Some scorers know how much the model reads only once they have loaded it.
            again = self._readable(prompt)
            if again.ranges == readable.ranges:
                raise
        return await self._totals(again)

    @property
    def context_length(self) -> int | None:
        """The number of tokens that the model reads, or ``None`` if it is not known."""
        return ScorerCapabilities.of(self.scorer).context_length

    def _readable(self, prompt: WirePrompt) -> WirePrompt:
        """Return the prompt with the ranges that the model reads; with images, that is unknown."""
        limit = self.context_length
        if limit is None or len(prompt.tokens) <= limit or prompt.images:
            return prompt
        ends = zip(prompt.node_ids, prompt.ranges, strict=True)
        return ask_only(prompt, {node_id for node_id, (_, end) in ends if end <= limit})

    async def _totals(self, prompt: WirePrompt) -> Totals:
        cache, keys = self._cache, dict(zip(prompt.node_ids, _keys(prompt), strict=True))
        found: dict[str, float] = {}
        while True:
            found.update((i, it) for i, key in keys.items() if (it := self._get(key)) is not None)
            missing = {id_: key for id_, key in keys.items() if id_ not in found}
            asking = {cache.pending[key] for key in missing.values() if key in cache.pending}
            mine = {id_: key for id_, key in missing.items() if key not in cache.pending}
            if mine:
                found.update(await self._ask(ask_only(prompt, mine), mine))
            elif asking:
                # Whether it fails or not: what is still missing then is asked for here.
                await asyncio.wait(asking)
            else:
                return found

    def known(self, prompt: WirePrompt) -> Totals:
        """Return the prompt's totals that are cached, by node id: nothing is sent."""
        found = zip(prompt.node_ids, map(self._get, _keys(prompt)), strict=True)
        return {id_: total for id_, total in found if total is not None}

    async def score_uncached(self, prompt: WirePrompt) -> Totals:
        """Return the prompt's totals by node id, cached or not; without ranges, nothing is sent.

        Raises:
            ScorerError: the scorer failed, or its answer does not fit what was asked.
            BreakerError: too many calls in a row have failed.
        """
        return {id_: score.total for id_, score in (await self._scores(prompt)).items()}

    async def knock_out(
        self,
        prompt: WirePrompt,
        hidden: Sequence[Sequence[tuple[int, int]]],
        tokens: int,
        leads: Sequence[int] = (),
    ) -> list[Totals]:
        """Return the totals of ``prompt`` by node id, with each of ``hidden`` spans out of sight.

        It is for scorers that have ``ScorerCapabilities.knock_out``. ``tokens`` are about to run
        through the model; where the scorer says how many did, those count as sent, too. ``leads``
        are numbers of tokens before each response that do not see the spans either; a scorer that
        does not tell the values of tokens is asked again, without them.

        Raises:
            ScorerError: the scorer failed, or its answer does not fit what was asked.
            BreakerError: too many calls in a row have failed.
        """
        ask = ScorerCapabilities.of(self.scorer).knock_out
        if ask is None:
            raise ScorerError(f"{self.scorer.model} cannot hide memories from its responses")
        leads = leads if any(leads) and self._hides_leads else [0] * len(prompt.ranges)
        spans = zip(prompt.ranges, leads, strict=True)
        ranges = tuple((start - lead, end) for (start, end), lead in spans)
        asked = replace(prompt, ranges=ranges)
        result = await self._counted(lambda: awaited(ask, asked, hidden), tokens)
        extra = (result.computed_tokens or tokens) - tokens
        self.usage.prompt_tokens += extra
        self.usage.sent_tokens += extra
        check_answers(self.scorer.model, [asked] * len(hidden), result.ranges)
        if any(leads) and any(it.values is None for row in result.ranges for it in row):
            self._hides_leads = False
            return await self.knock_out(prompt, hidden, tokens)
        return [
            {
                id_: math.fsum((it.values or ())[lead:]) if lead else it.total
                for id_, lead, it in zip(prompt.node_ids, leads, row, strict=True)
            }
            for row in result.ranges
        ]

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Return what the scorer continues ``prompt`` with; it is no call of ``usage``.

        Raises:
            ScorerError: the scorer failed, or its answer is no text with the ids of its tokens.
            BreakerError: too many calls in a row have failed.
        """
        usage = self.usage
        most = len(prompt.tokens) + max_tokens

        async def ask() -> Generated:
            return await awaited(self.scorer.generate, prompt, max_tokens=max_tokens, stop=stop)

        with usage.generating:
            answer = await self._retry(lambda: count_sent(usage, most, ask))
        generated = check_generated(f"{type(self.scorer).__name__}, {self.scorer.model}", answer)
        if generated.token_ids is not None:
            usage.generated_tokens += len(generated.token_ids)
            usage.sent_tokens -= max(0, max_tokens - len(generated.token_ids))
        return generated

    def token_logprobs(self, prompt: WirePrompt) -> TokenLogprobs:
        """Return each token's log-probability, by node id, of what ``score`` returned for it.

        Responses whose values were not to be kept, or not given, are left out.
        """
        if not self._tokens:
            return {}
        found = zip(prompt.node_ids, map(self._cache.token_logprobs, _keys(prompt)), strict=True)
        return {node_id: logprobs for node_id, logprobs in found if logprobs is not None}

    def _get(self, key: Key) -> float | None:
        # Another flow may have asked for the total alone.
        if self._tokens and not self._cache.has_token_logprobs(key):
            return None
        return self._cache.get(key)

    async def _ask(self, prompt: WirePrompt, keys: dict[str, Key]) -> Totals:
        pending, done = self._cache.pending, asyncio.get_running_loop().create_future()
        pending.update(dict.fromkeys(keys.values(), done))
        try:
            scores = await self._scores(prompt)
        finally:
            for key in keys.values():
                del pending[key]
            done.set_result(None)
        for (id_, score), span in zip(scores.items(), prompt.ranges, strict=True):
            self._cache.add(keys[id_], score.total)
            if self._tokens:
                self._cache.add_token_logprobs(keys[id_], _by_token(score, span))
        return {id_: score.total for id_, score in scores.items()}

    async def _scores(self, prompt: WirePrompt) -> dict[str, RangeScore]:
        if not prompt.ranges:
            return {}
        counted = self._counted(lambda: awaited(self.scorer.score, [prompt]), len(prompt.tokens))
        answers = (await counted).ranges
        check_answers(self.scorer.model, [prompt], answers)
        return dict(zip(prompt.node_ids, answers[0], strict=True))

    async def _counted(self, ask: Callable[[], Awaitable[Answer]], tokens: int) -> ScoreResult:
        """Return what ``ask`` returns, and count it as a call of so many tokens."""
        usage = self.usage
        self._retry.require_closed()
        computed: int | None = None
        arrived: list[bool] = []

        async def attempt() -> ScoreResult:
            arrived.append(True)
            try:
                with usage.scoring:
                    return ScoreResult.of(await count_sent(usage, tokens, ask))
            except ScorerError as error:
                arrived[-1] = error.arrived
                raise

        try:
            result = await self._retry(attempt)
            computed = result.computed_tokens
        finally:
            # Of all attempts, none may have reached the model.
            if any(arrived):
                usage.calls += 1
                usage.prompt_tokens += tokens
                usage.known_computed += computed or 0
                # How far a call that failed got is not known.
                known = computed is not None and usage.computed_tokens is not None
                usage.computed_tokens = (
                    (usage.computed_tokens or 0) + (computed or 0) if known else None
                )
        return result


async def weights_of(scorer: Scorer, server: ServerSettings, retry: Retry) -> str | None:
    """Return what tells the scorer's weights from others of one name; ``None``: it is not known.

    Raises:
        ScorerError: the scorer failed.
    """
    capabilities = ScorerCapabilities.of(scorer)
    if capabilities.fingerprint is not None:
        return await retry.wrap(capabilities.fingerprint)()
    if capabilities.swaps_adapters:
        return None
    adapter = capabilities.adapter
    # Answered by the name alone: another address may have another model of that name.
    return f"{server.scorer} {server.base_url} {'' if adapter is None else adapter}"


def _by_token(score: RangeScore, span: tuple[int, int]) -> tuple[float, ...] | None:
    """Return a range's values where there is one for each token and they add up to the total."""
    start, end = span
    if score.values is None or len(score.values) != end - start:
        return None
    apart = abs(math.fsum(score.values) - score.total)
    return score.values if apart <= ROUNDING * (end - start) else None


def _keys(prompt: WirePrompt) -> Iterator[Key]:
    """Yield what determines each range's total: the ids up to its end, images, and its start."""
    digest = blake2b(digest_size=16)
    for image in prompt.images:
        digest.update(f"{image.mime} {len(image.data)} ".encode() + image.data)
    done = 0
    for start, end in prompt.ranges:
        digest.update(array("q", prompt.tokens[done:end]).tobytes())
        done = end
        yield digest.copy().digest(), start
