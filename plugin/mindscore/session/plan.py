"""Plan a command's cost: run the flow itself against a scorer that only counts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from math import comb
from typing import Any, Literal

from mindhooks import (
    BaseScorer,
    FinetuneStats,
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
from mindscore.config.file import merge
from mindscore.config.settings import Settings, parse_settings
from mindscore.conversation.template import RenderChat
from mindscore.flows.finetune import FinetuneScoring
from mindscore.flows.memory import MemoryScoring
from mindscore.measure.interactions import MOST_GROUPS, MOST_PAIRS
from mindscore.measure.prefixes import PrefixIndex, prefix_key
from mindscore.session.session import Session
from mindscore.store import History, Speed

SCREENED = "at most: a screen takes no more than measuring every memory, and most often far less"
"""The words beside the plan of a screened matrix."""

MEASURED_TOKENS = 256
"""Tokens of the prompt that is timed, at most."""

MEASURED_ALTERNATE_TOKENS = 16
"""Tokens that are generated to time it."""


@dataclass(frozen=True, slots=True)
class Times:
    """The seconds that a command is estimated to take; ``None``: no speed is known.

    ``confirming`` and ``generating`` are the most that it may be.
    """

    loading: float | None = 0.0
    scoring: float | None = 0.0
    confirming: float | None = 0.0
    generating: float | None = 0.0

    @property
    def total(self) -> float | None:
        """The sum, ``None`` where a part is not known."""
        parts = (self.loading, self.scoring, self.confirming, self.generating)
        known = [it for it in parts if it is not None]
        return sum(known) if len(known) == len(parts) else None


@dataclass(frozen=True, slots=True)
class Plan:
    """The cost of a command before it is run.

    ``computed_tokens`` and ``times`` are estimates: what a server keeps of earlier prompts, and how
    fast it is, is its own. ``computed_tokens`` is ``None`` where that is not known.

    Attributes:
        confirming_calls: at most as many calls more, to confirm groups that hide each other, and
            pairs that need each other.
        confirming_tokens: at most as many tokens sent more, by these.
        alternates: at most as many are generated.
        place: the server, or the scorer, that ``times`` are of.
        speed: the origin of ``times``; ``None``: no speed is known.
        is_limit: the matrix is screened: this is what it takes at most.
        not_planned: other plugins that answer the command, whose cost is not known.
    """

    command: str
    model: str
    outcomes: Mapping[str, Outcome]
    calls: int
    prompt_tokens: int
    computed_tokens: int | None
    confirming_calls: int
    confirming_tokens: int
    alternates: int
    times: Times
    place: str
    speed: Literal["remembered", "measured"] | None
    is_limit: bool
    not_planned: tuple[str, ...]
    error: str | None


class CountingScorer(BaseScorer):
    """Answers 0 for every range, and estimates how many tokens would be computed.

    Where the scorer in whose place it stands reuses prefixes, a prompt is taken to be computed from
    where it departs from all earlier ones; vLLM begins a block of tokens earlier at most.
    """

    def __init__(self, scorer: Scorer) -> None:
        capabilities = ScorerCapabilities.of(scorer)
        self.model = scorer.model
        self.noisy = capabilities.noisy
        self.adapter = capabilities.adapter
        self.swaps_adapters = capabilities.swaps_adapters
        self.fingerprint = capabilities.fingerprint
        self.context_length = capabilities.context_length
        self.takes_images = capabilities.takes_images
        self._scorer = scorer
        self._earlier = PrefixIndex()
        self.first: WirePrompt | None = None
        self.longest = 0
        """Tokens of the longest prompt."""
        self.most_ranges = 0
        """Responses that one prompt asks for, at most."""

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        """Return zeros."""
        for prompt in prompts:
            self.first = self.first or prompt
            self.longest = max(self.longest, len(prompt.tokens))
            self.most_ranges = max(self.most_ranges, len(prompt.ranges))
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

    @property
    def render_chat(self) -> RenderChat | None:  # type: ignore[override]
        """The capability of the scorer in whose place this stands, as far as it is known."""
        return ScorerCapabilities.of(self._scorer).render_chat

    async def tokenize(self, text: str) -> list[int]:
        """Tokenise with the scorer in whose place this stands."""
        return await self._scorer.tokenize(text)

    def _computed(self, prompt: WirePrompt, reuses: bool) -> int:
        tokens = prompt.tokens
        if not reuses:
            return len(tokens)
        key = prefix_key(tokens)
        shared = self._earlier.longest(key)
        self._earlier.add(key)
        # The token before a response says how likely its first one is.
        return len(tokens) - min(shared, prompt.ranges[0][0] - 1)


async def make_plan(
    session: Session, tables: Mapping[str, Any], command: str, *, measure: bool = False
) -> Plan:
    """Return what ``command`` would cost; nothing is scored, and no plugin hears of it.

    The time is estimated from the speed that earlier runs had. With ``measure``, the model is
    loaded and one short prompt is timed; that is remembered.

    Raises:
        MindhooksError: the flow that is planned is disabled: what answers in its place is unknown.
        ScorerError: the scorer cannot be built.
    """
    settings = parse_settings(tables)
    is_finetune = command == MindCommand.SCORE_FINETUNE
    generates = is_finetune and settings.finetune.generate_alternates
    own = settings.plugins.settings
    scorer = await load_scorer(tables.get("server", {}))
    async with aclosing(scorer):
        counting = CountingScorer(scorer)
        others = await _other_plugins(
            Registry(session, tables, scorer=counting),
            command,
            "finetune-scoring" if is_finetune else "memory-scoring",
        )
        options = own.get("memory-scoring", {})
        many = settings.memory.screens(len(session.transcript.keys()))
        screens = command == MindCommand.SCORE_FULL and (many or bool(options.get("screen")))
        stats = await _counted(session, tables, command, counting, options)
        alternates = 0
        outcomes = stats.outcomes if isinstance(stats, MemoryStats) else {}
        counted = _with_confirming(stats, counting, command, options)
        if generates and isinstance(stats, FinetuneStats):
            alternates = max(counting.most_ranges, stats.above_threshold)
        plan = Plan(
            command=command,
            model=scorer.model,
            outcomes=outcomes,
            calls=stats.calls,
            prompt_tokens=stats.prompt_tokens,
            computed_tokens=stats.computed_tokens,
            confirming_calls=counted.confirming_calls,
            confirming_tokens=counted.confirming_tokens,
            alternates=alternates,
            times=Times(),
            place=settings.server.place,
            speed=None,
            is_limit=screens,
            not_planned=others,
            error=stats.error,
        )
        if plan.error is not None or not (plan.calls or plan.alternates):
            return plan
        history = History(settings.store)
        if measure and counting.first:
            measured = await _measure(scorer, counting.first, plan)
            await history.record_speed(measured)
            return _with_times(plan, measured, "measured", settings)
        device = ScorerCapabilities.of(scorer).device
        speed = await history.speed(plan.place, plan.model, device)
    if speed is None:
        return replace(plan, times=Times(*[None] * 4))
    return _with_times(plan, speed, "remembered", settings)


@dataclass(frozen=True, slots=True)
class CountedRun:
    """The statistics of a run that scored nothing, and the most that confirming may add."""

    stats: MemoryStats | FinetuneStats
    confirming_calls: int
    confirming_tokens: int


def _with_confirming(
    stats: MemoryStats | FinetuneStats,
    counting: CountingScorer,
    command: str,
    options: Mapping[str, Any],
) -> CountedRun:
    confirming = 0
    outcomes = stats.outcomes if isinstance(stats, MemoryStats) else {}
    scored = sum(it.status == "scored" for it in outcomes.values())
    if counting.first and command == MindCommand.SCORE_FULL and options.get("hold"):
        # Groups: one for each response at most. In all, one for each set of two memories or more.
        few = min(scored, MOST_GROUPS)
        groups, pairs = min(MOST_GROUPS, counting.most_ranges), min(MOST_PAIRS, comb(scored, 2))
        confirming = min(groups + pairs, 2**few - few - 1)
    return CountedRun(stats, confirming, confirming * counting.longest)


async def count_calls(
    session: Session,
    tables: Mapping[str, Any],
    command: str,
    scorer: Scorer,
    options: Mapping[str, Any],
) -> CountedRun:
    """Return the statistics that ``command`` would have: ``scorer`` scores nothing.

    ``options`` are those of memory-scoring.

    Raises:
        MindhooksError: the settings are wrong.
    """
    counting = CountingScorer(scorer)
    stats = await _counted(session, tables, command, counting, options)
    return _with_confirming(stats, counting, command, options)


async def _counted(
    session: Session,
    tables: Mapping[str, Any],
    command: str,
    counting: CountingScorer,
    options: Mapping[str, Any],
) -> MemoryStats | FinetuneStats:
    own = parse_settings(tables).plugins.settings
    # A screen goes by what it finds, which is nothing here, and takes no more than all rows do.
    tables = merge(tables, {"memory": {"screen": "off"}})
    options = {**options, "screen": False}
    async with Registry(session, tables, scorer=counting) as registry:
        registry.register(MemoryScoring(options), name="memory-scoring")
        finetune = FinetuneScoring(own.get("finetune-scoring", {}))
        registry.register(finetune, name="finetune-scoring")
        session.listen(registry)
        stats = (await session.run(command)).stats
    assert stats is not None  # noqa: S101 - our flows report them, however they end
    return stats


async def _other_plugins(registry: Registry, command: str, flow: str) -> tuple[str, ...]:
    """Return the plugins beside ``flow`` that answer ``command``, or may do so.

    Raises:
        MindhooksError: ``flow`` would not run.
    """
    async with registry:
        registry.load_entry_points()
        infos = registry.plugins()
    answering = [
        it
        for it in infos
        if it.is_registered
        and "on_trigger" in it.hooks
        and (command in (it.commands or (command,)))
    ]
    others = tuple(it.name for it in answering if it.name != flow)
    if len(others) < len(answering):
        return others
    settings = parse_settings(registry.settings).plugins
    by = "plugins.disabled" if flow in settings.disabled else "see mindscore plugins"
    instead = f"what {' and '.join(others)} would cost in its place" if others else "nothing else"
    raise MindhooksError(f"{flow} is disabled ({by}), and {instead} is known")


def _with_times(
    plan: Plan, speed: Speed, origin: Literal["remembered", "measured"], settings: Settings
) -> Plan:
    computed = None if plan.computed_tokens is None else plan.confirming_tokens
    most_tokens = plan.alternates * settings.finetune.max_alternate_tokens
    times = Times(
        loading=speed.loading_s or 0.0,
        scoring=speed.scoring(plan.prompt_tokens, plan.computed_tokens),
        confirming=speed.scoring(plan.confirming_tokens, computed),
        generating=speed.generating(most_tokens) if most_tokens else 0.0,
    )
    return replace(plan, times=times, speed=origin)


async def _measure(scorer: Scorer, prompt: WirePrompt, plan: Plan) -> Speed:
    """Time a part of ``prompt``, and some tokens of an alternate where ``plan`` has any."""
    tokens = prompt.tokens
    # The first call loads the model. The other does not begin as it did: a server may keep that.
    await _score_last(scorer, tokens[:2])
    started = time.monotonic()
    short = tokens[1 : 1 + MEASURED_TOKENS]
    computed = await _score_last(scorer, short)
    scored = time.monotonic()
    generated: Sequence[int] = ()
    if plan.alternates:
        asked = WirePrompt(short, (), (), ())
        count = MEASURED_ALTERNATE_TOKENS
        generated = (await scorer.generate(asked, max_tokens=count, stop=())).token_ids or ()
    capabilities = ScorerCapabilities.of(scorer)
    return Speed(
        server=plan.place,
        model=plan.model,
        device=capabilities.device,
        prompt_tokens=len(short),
        computed_tokens=computed,
        scoring_s=scored - started,
        generated_tokens=len(generated),
        generating_s=time.monotonic() - scored if generated else 0.0,
        loading_s=capabilities.loading_s,
        measured_at=time.time(),
    )


async def _score_last(scorer: Scorer, tokens: Sequence[int]) -> int | None:
    """Score the last token of a prompt; return the tokens computed for it."""
    end = len(tokens)
    prompt = WirePrompt(tuple(tokens), (), ((end - 1, end),), ("measured",))
    return ScoreResult.of(await scorer.score([prompt])).computed_tokens
