"""Compare responses with memories and without: one memory, all of them, and the noise."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mindhooks import (
    Context,
    ResponseDivergence,
    Scorer,
    ScorerCapabilities,
    ScorerError,
    WirePrompt,
)
from mindscore._util.aio import Pace
from mindscore._util.errors import format_error
from mindscore.config.settings import ServerSettings
from mindscore.measure import memories
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache
from mindscore.measure.divergence import TokenLogprobs, Totals, divergences, token_differences
from mindscore.measure.prompts import ask_only, prompts_for
from mindscore.measure.retry import Retry
from mindscore.measure.usage import Usage

_logger = logging.getLogger("mindscore")


class NoiseFloor:
    """Scores a baseline's responses again, each once in a run.

    ``spread`` is a response's largest total less its smallest, in nats, by node id. It is an
    estimate: one repetition shows the size of the noise, not its distribution.
    """

    def __init__(self, scorer: CachedScorer, repeats: int | Literal["auto"]) -> None:
        noisy = ScorerCapabilities.of(scorer.scorer).noisy
        self.repeats = int(noisy) if repeats == "auto" else repeats
        self._scorer = scorer
        self._tried: set[str] = set()
        self._turn = asyncio.Lock()
        self.spread: dict[str, float] = {}

    async def measure(self, prompt: WirePrompt, totals: Totals) -> None:
        """Score the responses of ``prompt`` again; ``totals`` are those of the first time.

        A scorer that fails leaves the noise unknown, with a logged warning.
        """
        if self.repeats == 0:
            return
        async with self._turn:
            new = [it for it in prompt.node_ids if it in totals and it not in self._tried]
            self._tried.update(new)
            found = [totals]
            try:
                for _ in range(self.repeats if new else 0):
                    found.append(await self._scorer.score_uncached(ask_only(prompt, new)))  # noqa: PERF401
            # A scorer may be a third party's.
            except Exception as error:
                _logger.warning(
                    "the noise of %d responses is not known: %s", len(new), format_error(error)
                )
                return
            for id_ in new:
                values = [each[id_] for each in found]
                self.spread[id_] = max(values) - min(values)


Divergences = tuple[ResponseDivergence, ...]

MOST_NAMED = 20
"""Responses that a remark names by their numbers."""


@dataclass(frozen=True, slots=True)
class UnreadResponses:
    """The responses of a run that were not measured: the model does not read so far.

    ``lengths`` are their own tokens, by conversation index; ``limit`` is what the model reads.
    """

    model: str
    limit: int
    lengths: Mapping[int, int]

    @property
    def remark(self) -> str:
        """A line on what is left out, by number, and why."""
        count, numbers = len(self.lengths), [f"#{index}" for index in sorted(self.lengths)]
        more = [f"{len(numbers) - MOST_NAMED} more"] if len(numbers) > MOST_NAMED else []
        them = "1 response is left out: it ends"
        if count > 1:
            them = f"{count} responses are left out: they end"
        alone = [
            f"#{index} alone has {length:,}"
            for index, length in sorted(self.lengths.items())
            if length > self.limit
        ]
        return (
            f"{them} beyond the {self.limit:,} tokens that {self.model} reads ("
            f"{', '.join([*numbers[:MOST_NAMED], *more, *alone[:MOST_NAMED]])}); "
            "score with a model of a longer context"
        )


class LeaveOneOut:
    """Compares windows of a conversation with memories and without.

    A baseline is scored before what is compared with it, so that a server that caches prefixes has
    its prefixes by then. A response that ends beyond the tokens that the model reads is left out,
    and is then among ``unread``.
    """

    def __init__(self, scorer: CachedScorer, context: Context, noise: NoiseFloor) -> None:
        self._scorer = scorer
        self._context = context
        self._noise = noise
        self._turns: dict[range, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._failed: dict[range, Exception] = {}
        self._baselines: dict[range, Totals] = {}
        self._judged: dict[range, set[str]] = defaultdict(set)
        self._unread: set[str] = set()
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
            if window in self._baselines and self._judged[window] >= set(asked):
                # A prompt may be long: it is not built once more for each memory.
                return self._baselines[window]
            await self._pace.yield_to_loop()
            prompts = await prompts_for(self._context, window, memories.skip_none, asked)
            try:
                totals = await self._totals(prompts)
            except Exception as error:
                self._failed[window] = error
                raise
            for prompt in prompts:
                await self._noise.measure(prompt, totals)
            self._baselines[window], self._judged[window] = totals, set(asked)
            self._token_logprobs[window] = self._by_token(prompts)
            return totals

    async def _totals(self, prompts: Iterable[WirePrompt]) -> Totals:
        found: dict[str, float] = {}
        for prompt in prompts:
            found.update(await self._scorer.score(prompt))
        return found

    def _by_token(self, prompts: Iterable[WirePrompt]) -> TokenLogprobs:
        found = [self._scorer.token_logprobs(prompt) for prompt in prompts]
        return {node_id: values for each in found for node_id, values in each.items()}

    async def drop(
        self,
        window: range,
        skip: memories.Skip,
        judging: Collection[str] = (),
        known: Divergences = (),
        only: Collection[str] | None = None,
    ) -> Divergences:
        """Return the effect of all that ``skip`` names on each response in ``window``, or ``only``.

        It is the response's total with all memories, less that without those. ``judging`` are
        further responses for which the same baseline will be needed. ``known`` effects are not
        measured again.

        Raises:
            ScorerError: the scorer failed.
        """
        context = self._context
        await self._pace.yield_to_loop()
        asked = memories.responses_after_change(context, window, skip) - _ids(known)
        with_ = await self.baseline(window, {*asked, *judging})
        await self._pace.yield_to_loop()
        if only is not None:
            asked &= set(only)
        prompts = await prompts_for(context, window, skip, asked & with_.keys())
        without = await self._totals(prompts)
        by_token = self._token_logprobs.get(window, {})
        tokens = token_differences(by_token, self._by_token(prompts))
        its = memories.responses(context, window, skip).items()
        responses = {it: index for it, index in its if only is None or it in only}
        read = self._read(responses, asked, with_.keys() & without.keys())
        return _joined(
            known,
            read,
            lambda it: divergences(it, with_, without, asked, self._noise.spread, tokens),
        )

    async def hold(
        self,
        window: range,
        key: str,
        judging: Collection[str] = (),
        known: Divergences = (),
    ) -> Divergences:
        """Return the effect of the memory ``key`` alone: with it and no other, less with none.

        ``known`` effects are not measured again.

        Raises:
            ScorerError: the scorer failed.
        """
        context = self._context
        await self._pace.yield_to_loop()
        responses = memories.responses(context, window, memories.skip_all)
        asked = memories.responses_after_change(
            context, window, memories.skip_all_except(key), memories.skip_all
        ) - _ids(known)
        bare = await prompts_for(context, window, memories.skip_all, {*asked, *judging})
        without = await self._totals(bare)
        await self._pace.yield_to_loop()
        others = memories.skip_all_except(key)
        alone = await prompts_for(context, window, others, asked & without.keys())
        with_ = await self._totals(alone)
        read = self._read(responses, asked, with_.keys() & without.keys())
        return _joined(
            known, read, lambda it: divergences(it, with_, without, asked, self._noise.spread, {})
        )

    async def known_drop(self, window: range, skip: memories.Skip) -> dict[str, float]:
        """Return the effect of all that ``skip`` names, in nats by node id, where it is known.

        Nothing is sent for it: both totals were asked for before.
        """
        context, with_ = self._context, self._baselines.get(window, {})
        behind = memories.responses_after_change(context, window, skip)
        prompts = await prompts_for(context, window, skip, behind & with_.keys())
        without = [self._scorer.known(it) for it in prompts]
        return {id_: with_[id_] - total for its in without for id_, total in its.items()}

    async def filled(
        self, window: range, skip: memories.Skip, prompts: Sequence[WirePrompt]
    ) -> dict[str, float]:
        """Return the effect of what ``prompts`` have in the place of all that ``skip`` names.

        It is the total of each response behind that place, in nats, less that without those, by
        node id.

        Raises:
            ScorerError: the scorer failed.
        """
        context = self._context
        behind = memories.responses_after_change(context, window, skip)
        with_ = await self._totals(ask_only(it, behind) for it in prompts)
        await self._pace.yield_to_loop()
        without = await self._totals(await prompts_for(context, window, skip, with_.keys()))
        return {id_: total - without[id_] for id_, total in with_.items() if id_ in without}

    def resume(self, window: range, skip: memories.Skip, row: Divergences) -> None:
        """Take note of the responses that ``row``, measured earlier, was without."""
        responses = memories.responses(self._context, window, skip)
        self._unread |= responses.keys() - {it.node_id for it in row}

    @property
    def unread(self) -> UnreadResponses | None:
        """The responses that were left out so far, or ``None`` if all were measured."""
        limit = self._scorer.context_length
        if not self._unread or limit is None:
            return None
        nodes = enumerate(self._context.conversation)
        lengths = {at: len(it.token_ids) for at, it in nodes if it.id in self._unread}
        return UnreadResponses(self._scorer.scorer.model, limit, lengths)

    def _read(
        self, responses: Mapping[str, int], asked: Collection[str], known: Collection[str]
    ) -> dict[str, int]:
        """Return ``responses`` without those ``asked`` for that are not ``known``.

        Raises:
            ScorerError: nothing that was asked for is known.
        """
        unread = set(asked) - set(known)
        self._unread |= unread
        if unread and unread == set(asked):
            raise ScorerError(
                f"every response that could tell ends beyond the {self._scorer.context_length:,} "
                f"tokens that {self._scorer.scorer.model} reads: score with a model of a longer "
                "context"
            )
        return {it: index for it, index in responses.items() if it not in unread}


def _ids(row: Divergences) -> set[str]:
    return {it.node_id for it in row}


def _joined(
    known: Divergences,
    read: Mapping[str, int],
    measured: Callable[[dict[str, int]], Divergences],
) -> Divergences:
    """Return the row of the responses ``read``: the known part of it, and what was measured."""
    ids = _ids(known)
    new = measured({it: index for it, index in read.items() if it not in ids})
    return tuple(sorted((*known, *new), key=lambda it: it.entry_idx)) if known else new


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
    row = await compared.drop(window, memories.skip_only(key))
    if compared.unread is not None:
        # A sum has no room to say so.
        raise ScorerError(compared.unread.remark)
    return sum(it.divergence for it in row)


@dataclass(frozen=True, slots=True)
class Effect:
    """A response's total log-probability with all memories and with none, in nats."""

    node_id: str
    with_: float
    without: float

    @property
    def divergence(self) -> float:
        """Return the nats by which the memories make it likelier, at least 0."""
        return max(0.0, self.with_ - self.without)


async def memory_effects(context: Context, scorer: Scorer) -> list[Effect]:
    """Return the effect of all memories together on each response, from two score calls.

    Raises:
        ScorerError: the scorer failed.
    """
    with_ = await response_totals(context, scorer, memories.skip_none)
    without = await response_totals(context, scorer, memories.skip_all)
    return [Effect(node_id, total, without[node_id]) for node_id, total in with_.items()]


async def response_totals(
    context: Context, scorer: Scorer, skip: memories.Skip = memories.skip_none
) -> dict[str, float]:
    """Return each response's total log-probability, in nats, without what ``skip`` names.

    Raises:
        ScorerError: the scorer failed.
    """
    cached = CachedScorer(scorer, Usage(), ScoreCache(), Retry(ServerSettings()))
    found: dict[str, float] = {}
    for prompt in await context.wire_prompts(memories.whole(context), skip):
        found.update(await cached.score_uncached(prompt))
    return found


def mean_divergence(effects: Sequence[Effect]) -> float:
    """Return the mean over the responses, in nats."""
    return sum(it.divergence for it in effects) / len(effects)


def relative_change(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return the relative change of log-probabilities, both directions counted as change:

    ``sum |after - before| / sum |before|`` over the responses of ``before``.
    """
    changes = sum(abs(after[node_id] - total) for node_id, total in before.items())
    return changes / sum(map(abs, before.values()))
