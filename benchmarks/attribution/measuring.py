"""Score the prompts that methods ask for: each once, charged to every method that asks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from benchmarks.attribution.cases import Case
from benchmarks.attribution.distributions import Distributions
from mindhooks import (
    Context,
    KnockOut,
    RangeScore,
    Registry,
    Scorer,
    ScorerCapabilities,
    ScoreResult,
    WirePrompt,
)
from mindscore.config.settings import ServerSettings
from mindscore.conversation.rendering import KeySets
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache
from mindscore.measure.leave_one_out import LeaveOneOut, NoiseFloor
from mindscore.measure.memories import Skip, find_memories, skip_none, skip_only, whole
from mindscore.measure.prompts import common_prefix, prompts_for
from mindscore.measure.retry import Retry
from mindscore.measure.screening.spans import MemorySpans, Span, find_spans
from mindscore.measure.usage import Usage
from mindscore.session.session import Session


class Cost(msgspec.Struct):
    """The work of a method.

    ``sent`` counts the tokens of all its prompts, ``computed`` those that are left if no prefix of
    its own prompts is computed twice. ``seconds`` are those of its distinct prompts, as they were
    scored, which may have been for another method.
    """

    calls: float = 0
    sent: float = 0
    computed: float = 0
    seconds: float = 0.0

    def shared_by(self, answers: int) -> Cost:
        """Return the part of each of several answers that were measured together."""
        parts = (it / answers for it in msgspec.structs.astuple(self))
        return Cost(*parts)


@dataclass(frozen=True, slots=True)
class _Known:
    ranges: Sequence[RangeScore]
    seconds: float
    shifts: dict[str, list[float]]


class _Charge(NamedTuple):
    prompt: WirePrompt
    seconds: float
    more: int


def distinct_prefixes(prompts: Sequence[WirePrompt]) -> int:
    """Return the tokens that are computed for ``prompts`` if no prefix is computed twice."""
    count, before = 0, tuple[int, ...]()
    for tokens in sorted({it.tokens for it in prompts}):
        count += len(tokens) - common_prefix(before, tokens)
        before = tokens
    return count


def holding(node_id: str, prompts: Sequence[WirePrompt]) -> WirePrompt:
    """Return the one of ``prompts`` that has the answer ``node_id``."""
    return next(it for it in prompts if node_id in it.node_ids)


class RecordingScorer:
    """A scorer that remembers its answers: what two methods ask for is computed once.

    All else than scoring is the scorer's within.

    With ``distributions``, it keeps how far each response's tokens are from those of the first
    prompt, the one with all memories.
    """

    def __init__(self, scorer: Scorer, distributions: Distributions | None = None) -> None:
        self.inner = scorer
        self.model = scorer.model
        self._distributions = distributions
        self._known: dict[tuple[Any, ...], _Known] = {}
        self._charged: list[list[_Charge]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        """Return the scores of each prompt, as they were the first time."""
        return ScoreResult([(await self.known(prompt)).ranges for prompt in prompts])

    async def known(self, prompt: WirePrompt) -> _Known:
        """Return what is known of a prompt, once it is scored, and charge it."""
        key = (prompt.tokens, prompt.ranges)
        if key not in self._known:
            self._known[key] = await self._ask(prompt)
        self.charge(prompt, self._known[key].seconds)
        return self._known[key]

    @property
    def knock_out(self) -> KnockOut | None:
        """The scorer's own, charged with the prompt and its answers once a set of hidden spans."""
        return self._hide if ScorerCapabilities.of(self.inner).knock_out else None

    async def _hide(self, prompt: WirePrompt, hidden: Sequence[Sequence[Span]]) -> ScoreResult:
        started = time.perf_counter()
        result = await self.inner.knock_out(prompt, hidden)  # type: ignore[attr-defined]
        seconds = time.perf_counter() - started
        rows = sum(
            end - start
            for spans in hidden
            for start, end in prompt.ranges
            if spans and start >= min(spans)[0]
        )
        self.charge(prompt, seconds, rows)
        return ScoreResult.of(result)

    async def _ask(self, prompt: WirePrompt) -> _Known:
        distributions = self._distributions
        with distributions.noting() if distributions else nullcontext():
            started = time.perf_counter()
            answer = ScoreResult.of(await self.inner.score([prompt]))
            seconds = time.perf_counter() - started
            shifts = distributions.shifts(prompt) if distributions else {}
        return _Known(answer.ranges[0], seconds, shifts)

    def charge(self, prompt: WirePrompt, seconds: float, more: int = 0) -> None:
        """Count a prompt, the seconds that it took, and ``more`` tokens, computed behind it."""
        for charged in self._charged:
            charged.append(_Charge(prompt, seconds, more))

    @contextmanager
    def charged(self) -> Iterator[Cost]:
        """Fill in the cost of what is asked for meanwhile, at the end."""
        charged, cost = list[_Charge](), Cost()
        self._charged.append(charged)
        try:
            yield cost
        finally:
            self._charged.remove(charged)
            more = sum(it.more for it in charged)
            cost.calls = len(charged)
            cost.sent = sum(len(it.prompt.tokens) for it in charged) + more
            cost.computed = distinct_prefixes([it.prompt for it in charged]) + more
            cost.seconds = sum({it.prompt: it.seconds for it in charged}.values())


class Measuring:
    """A case, rendered for a model, with its scorer.

    ``keys`` are those of its memories, in prompt order; ``node_ids`` those of its answers.
    """

    def __init__(self, case: Case, context: Context, scorer: RecordingScorer) -> None:
        self.case = case
        self.context = context
        self.scorer = scorer
        self.window = whole(context)
        self.keys = [it.key for it in find_memories(context)]
        self.node_ids = list(case.labels)

    def compared(self) -> LeaveOneOut:
        """Return mindscore's leave-one-out over this conversation, that knows nothing yet."""
        retry = Retry(ServerSettings())
        cached = CachedScorer(self.scorer, Usage(), ScoreCache(), retry, tokens=True)
        return LeaveOneOut(cached, self.context, NoiseFloor(cached, 0))

    async def prompts(self, skip: Skip) -> list[WirePrompt]:
        """Return the prompts without what ``skip`` names, for all answers.

        It is one, unless the model's chat template looks back.
        """
        return await prompts_for(self.context, self.window, skip, self.node_ids)

    async def totals(self, skip: Skip) -> list[float]:
        """Return the answers' log-probabilities, in nats, without what ``skip`` names."""
        known = await self._ranges(skip)
        return [known[id_].total for id_ in self.node_ids]

    async def token_logprobs(self, skip: Skip) -> dict[str, list[float]]:
        """Return the log-probability of each token, in nats, of each answer."""
        known = await self._ranges(skip)
        return {id_: list(known[id_].values or ()) for id_ in self.node_ids}

    async def _ranges(self, skip: Skip) -> dict[str, RangeScore]:
        found: dict[str, RangeScore] = {}
        for prompt in await self.prompts(skip):
            ranges = (await self.scorer.known(prompt)).ranges
            found |= zip(prompt.node_ids, ranges, strict=True)
        return found

    async def shifts(self, key: str) -> dict[str, list[float]]:
        """Return how far each token's distribution moves without ``key``, in nats, by node id.

        The prompt with all memories is to be scored first.
        """
        found: dict[str, list[float]] = {}
        for prompt in await self.prompts(skip_only(key)):
            found |= (await self.scorer.known(prompt)).shifts
        return found

    async def spans(self) -> MemorySpans:
        """Return where the memories' tokens are in the prompts with all of them."""
        prompts = await self.prompts(skip_none)
        memories = find_memories(self.context)
        return await find_spans(self.context, self.window, memories, prompts, reuses=True)

    def answer(self, node_id: str) -> tuple[int, ...]:
        """Return the ids of an answer."""
        node = next(it for it in self.context.conversation if it.id == node_id)
        return tuple(node.token_ids[slice(*node.body)])


@asynccontextmanager
async def measuring(
    case: Case, scorer: RecordingScorer, without: KeySets
) -> AsyncIterator[Measuring]:
    """Render the case; ``without``: the sets of memories to leave out, beside the usual ones."""
    keys = frozenset(case.transcript.keys())
    usual = [*({key} for key in keys), *(keys - {key} for key in keys), keys]
    session = Session(case.transcript)
    async with Registry(session, {}, scorer=scorer) as registry:
        session.listen(registry)
        sets = {frozenset(it) for it in (*usual, *without)}
        yield Measuring(case, await session.context_without(sets), scorer)
