"""Plan a command's cost: run the flow itself against a scorer that only counts."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from mindhooks import (
    BaseScorer,
    Generated,
    MemoryStats,
    MindCommand,
    MindhooksError,
    Outcome,
    RangeScore,
    Registry,
    Scorer,
    ScorerCapabilities,
    ScoreResult,
    WirePrompt,
    load_scorer,
)
from mindscore.config.settings import parse_settings
from mindscore.flows.finetune import FinetuneScoring
from mindscore.flows.memory import MemoryScoring
from mindscore.measure.prompts import common_prefix
from mindscore.session.session import Session

SHORT, LONG = 64, 512
"""Tokens of the two prompts that are timed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The cost of a command before it is run.

    ``computed_tokens`` and ``seconds`` are estimates: what a server keeps of earlier prompts, and
    how fast it is, is its own. ``None``: not known.
    """

    command: str
    model: str
    outcomes: Mapping[str, Outcome]
    calls: int
    prompt_tokens: int
    computed_tokens: int | None
    seconds: float | None
    error: str | None


class CountingScorer(BaseScorer):
    """Answers 0 for every range, and estimates how many tokens would be computed.

    Where the scorer in whose place it stands reuses prefixes, a prompt is taken to be computed from
    where it departs from all earlier ones.
    """

    def __init__(self, scorer: Scorer) -> None:
        capabilities = ScorerCapabilities.of(scorer)
        self.model = scorer.model
        self.noisy = capabilities.noisy
        self.render_chat = capabilities.render_chat
        self.adapter = capabilities.adapter
        self.swaps_adapters = capabilities.swaps_adapters
        self.fingerprint = capabilities.fingerprint
        self.context_length = capabilities.context_length
        self._scorer = scorer
        self._sorted: list[tuple[int, ...]] = []
        self.first: WirePrompt | None = None

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        """Return zeros."""
        self.first = self.first or next(iter(prompts), None)
        answers = [[RangeScore(0.0) for _ in prompt.ranges] for prompt in prompts]
        # Not before: some find out what they speak to when they first speak to it.
        reuses = ScorerCapabilities.of(self._scorer).reuses_prefixes
        if reuses is None:
            return ScoreResult(answers)
        return ScoreResult(answers, sum(self._computed(prompt, reuses) for prompt in prompts))

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Return nothing."""
        del prompt, max_tokens, stop
        return Generated((), "")

    async def tokenize(self, text: str) -> list[int]:
        """Tokenise with the scorer in whose place this stands."""
        return await self._scorer.tokenize(text)

    def _computed(self, prompt: WirePrompt, reuses: bool) -> int:
        tokens = prompt.tokens
        if not reuses:
            return len(tokens)
        # In lexical order, the prompt that shares most stands next to it.
        at = bisect_left(self._sorted, tokens)
        shared = max(
            (common_prefix(it, tokens) for it in self._sorted[max(0, at - 1) : at + 1]), default=0
        )
        self._sorted.insert(at, tokens)
        # The token before a response says how likely its first one is.
        return len(tokens) - min(shared, prompt.ranges[0][0] - 1)


async def make_plan(session: Session, tables: Mapping[str, Any], command: str) -> Plan:
    """Return what ``command`` would cost; nothing is recorded, no other plugin hears of it.

    Two short prompts are scored, to know how fast the model is.

    The time of a run that generates alternates is not known: nobody knows how long they get.

    Raises:
        MindhooksError: the flow that is planned is disabled: what answers in its place is unknown.
        ScorerError: the scorer cannot be built.
    """
    settings = parse_settings(tables)
    is_finetune = command == MindCommand.SCORE_FINETUNE
    flow = "finetune-scoring" if is_finetune else "memory-scoring"
    if flow in settings.plugins.disabled:
        raise MindhooksError(
            f"{flow} is disabled (plugins.disabled): only its own cost can be planned, not that of "
            "a plugin in its place"
        )
    generates = is_finetune and settings.finetune.generate_alternates
    own = settings.plugins.settings
    scorer = await load_scorer(tables.get("server", {}))
    async with aclosing(scorer):
        counting = CountingScorer(scorer)
        async with Registry(session, tables, scorer=counting) as registry:
            registry.register(MemoryScoring(own.get("memory-scoring", {})), name="memory-scoring")
            finetune = FinetuneScoring(own.get("finetune-scoring", {}))
            registry.register(finetune, name="finetune-scoring")
            session.listen(registry)
            stats = (await session.run(command)).stats
        assert stats is not None  # noqa: S101 - our flows report them, however they end
        seconds = 0.0 if stats.calls == 0 else None
        if stats.error is None and counting.first and not generates:
            latency, per_token = await _time(scorer, counting.first)
            work = stats.prompt_tokens if stats.computed_tokens is None else stats.computed_tokens
            seconds = latency * -(-stats.calls // settings.server.concurrency) + per_token * work
        return Plan(
            command=command,
            model=scorer.model,
            outcomes=stats.outcomes if isinstance(stats, MemoryStats) else {},
            calls=stats.calls,
            prompt_tokens=stats.prompt_tokens,
            computed_tokens=stats.computed_tokens,
            seconds=seconds,
            error=stats.error,
        )


async def _time(scorer: Scorer, prompt: WirePrompt) -> tuple[float, float]:
    """Seconds that a call takes whatever it asks, and those for each token."""
    tokens = prompt.tokens
    # The first one loads the model. None begins as another does: a server may keep what it had.
    await _timed(scorer, tokens[:2])
    short, long = tokens[1 : 1 + SHORT], tokens[2 : 2 + LONG]
    for_short, for_long = await _timed(scorer, short), await _timed(scorer, long)
    more = len(long) - len(short)
    per_token = max(0.0, for_long - for_short) / more if more > 0 else for_long / len(tokens)
    return max(0.0, for_short - per_token * len(short)), per_token


async def _timed(scorer: Scorer, tokens: Sequence[int]) -> float:
    if len(tokens) < 2:
        return 0.0
    end = len(tokens)
    prompt = WirePrompt(tuple(tokens), (), ((end - 1, end),), ("warm-up",))
    started = time.perf_counter()
    await scorer.score([prompt])
    return time.perf_counter() - started
