"""Call a scorer: count its use, check its answers, cache what is known, stop when it is down."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from weakref import WeakKeyDictionary

from mindhooks import RangeScore, Registry, Scorer, ScorerError, ScorerUnavailable, WirePrompt
from mindscore.measure.divergence import ROUNDING, Totals, Values, check_answers
from mindscore.measure.prompts import ask_only


class BreakerError(ScorerError):
    """Too many calls in a row have failed: none is made any more."""


class Breaker:
    """Counts the calls of one run that failed with ``ScorerUnavailable``, one after another.

    After ``most`` of them the breaker is open. A call that is answered, be it with a refusal, shows
    that there is somebody: the count begins anew.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._failures = 0
        self._opened: BreakerError | None = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call, for the scorer to have its attempts in.

        Raises:
            BreakerError: the breaker is open, or this failure opens it; the text has the cause.
        """
        if self._opened is not None:
            raise self._opened
        try:
            yield
        except ScorerUnavailable as error:
            self._failures += 1
            if self._failures < self._most:
                raise
            self._opened = BreakerError(
                f"stopped: of the last {self._most} calls each failed after all its attempts "
                f"(server.breaker_failures): {error}"
            )
            raise self._opened from error
        except ScorerError:
            self._failures = 0
            raise
        else:
            self._failures = 0


FRESH_S = 3600
"""A server may get another model while an agent lives: totals are shared for no longer."""

Key = tuple[bytes, int]


@dataclass(slots=True)
class Usage:
    """What a run has spent so far.

    ``calls`` counts prompts, ``prompt_tokens`` what they hold, ``computed_tokens`` what ran through
    the model: ``None`` once an answer has not said so.
    """

    calls: int = 0
    prompt_tokens: int = 0
    computed_tokens: int | None = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Wall time since the run began."""
        return time.monotonic() - self.started


class ScoreCache:
    """Totals that were measured, by what determines them: the prompt up to the response's end.

    Each token's values are there where a ``CachedScorer`` was to keep them. ``adapter`` is what the
    model had.
    """

    MOST = 200_000

    def __init__(self, adapter: object = None) -> None:
        self.started = time.monotonic()
        self.adapter = adapter
        self.flows: set[str] = set()
        self.pending: dict[Key, asyncio.Future[None]] = {}
        self._totals: dict[Key, float] = {}
        self._values: dict[Key, array[float] | None] = {}

    def get(self, key: Key) -> float | None:
        """The total of a response, where it is known."""
        return self._totals.get(key)

    def add(self, key: Key, total: float) -> None:
        """Keep a total; the oldest goes where there are too many."""
        if len(self._totals) >= self.MOST:
            oldest = next(iter(self._totals))
            del self._totals[oldest]
            self._values.pop(oldest, None)
        self._totals[key] = total

    def values(self, key: Key) -> array[float] | None:
        """Each token's value, where the scorer gave them and they were kept."""
        return self._values.get(key)

    def asked_for_values(self, key: Key) -> bool:
        """Whether the scorer's values would be here, had it given any."""
        return key in self._values

    def add_values(self, key: Key, values: Sequence[float] | None) -> None:
        """Keep what a response's total is the sum of; ``None``: the scorer gives totals only."""
        self._values[key] = None if values is None else array("d", values)


_shared: WeakKeyDictionary[Registry, ScoreCache] = WeakKeyDictionary()


def shared_totals(registry: Registry, flow: str, scorer: Scorer) -> ScoreCache:
    """What the flows of one host know together.

    A flow that runs again measures again: it begins anew what is shared. So does one whose model
    has other weights than before under the same name, or may have.
    """
    adapter = getattr(scorer, "adapter", None)
    known = _shared.get(registry)
    if (
        known is None
        or flow in known.flows
        or known.adapter != adapter
        or getattr(scorer, "swaps_adapters", False)
        or time.monotonic() - known.started > FRESH_S
    ):
        known = _shared[registry] = ScoreCache(adapter)
    known.flows.add(flow)
    return known


class CachedScorer:
    """A scorer whose use is counted in ``usage`` and whose answers are checked.

    What is in ``known`` is not asked again, and what another prompt is asking for is waited for.
    With ``tokens``, each token's value is kept there, too.
    """

    def __init__(
        self,
        scorer: Scorer,
        usage: Usage,
        known: ScoreCache,
        breaker: Breaker,
        *,
        tokens: bool = False,
    ) -> None:
        self.scorer = scorer
        self.usage = usage
        self._known = known
        self._breaker = breaker
        self._tokens = tokens

    async def totals(self, prompt: WirePrompt) -> Totals:
        """The prompt's totals by node id; without ranges that are not known, it is not sent.

        Raises:
            ScorerError: the scorer failed, or its answer does not fit what was asked.
        """
        known, keys = self._known, dict(zip(prompt.node_ids, _keys(prompt), strict=True))
        found: dict[str, float] = {}
        while True:
            found.update((i, it) for i, key in keys.items() if (it := self._get(key)) is not None)
            missing = {id_: key for id_, key in keys.items() if id_ not in found}
            asking = {known.pending[key] for key in missing.values() if key in known.pending}
            mine = {id_: key for id_, key in missing.items() if key not in known.pending}
            if mine:
                found.update(await self._ask(ask_only(prompt, mine), mine))
            elif asking:
                # Whether it fails or not: what is still missing then is asked for here.
                await asyncio.wait(asking)
            else:
                return found

    def values(self, prompt: WirePrompt) -> Values:
        """Each token's value, by node id, of what ``totals`` has told of the same prompt.

        Without those of which none were to be kept, or the scorer gave none.
        """
        if not self._tokens:
            return {}
        found = zip(prompt.node_ids, map(self._known.values, _keys(prompt)), strict=True)
        return {node_id: values for node_id, values in found if values is not None}

    def _get(self, key: Key) -> float | None:
        # Another flow may have asked for the total alone.
        if self._tokens and not self._known.asked_for_values(key):
            return None
        return self._known.get(key)

    async def _ask(self, prompt: WirePrompt, keys: dict[str, Key]) -> Totals:
        pending, done = self._known.pending, asyncio.get_running_loop().create_future()
        pending.update(dict.fromkeys(keys.values(), done))
        try:
            scores = await self._scores(prompt)
        finally:
            for key in keys.values():
                del pending[key]
            done.set_result(None)
        for (id_, score), span in zip(scores.items(), prompt.ranges, strict=True):
            self._known.add(keys[id_], score.total)
            if self._tokens:
                self._known.add_values(keys[id_], _by_token(score, span))
        return {id_: score.total for id_, score in scores.items()}

    async def measure(self, prompt: WirePrompt) -> Totals:
        """The prompt's totals by node id, whatever is known of them; without ranges, not sent.

        Raises:
            ScorerError: the scorer failed, or its answer does not fit what was asked.
            BreakerError: too many calls in a row have failed.
        """
        return {id_: score.total for id_, score in (await self._scores(prompt)).items()}

    async def _scores(self, prompt: WirePrompt) -> dict[str, RangeScore]:
        if not prompt.ranges:
            return {}
        with self._breaker.call():
            answers = await self._counted(prompt)
        check_answers(getattr(self.scorer, "model", "the scorer"), [prompt], answers)
        return dict(zip(prompt.node_ids, answers[0], strict=True))

    async def _counted(self, prompt: WirePrompt) -> list[list[RangeScore]]:
        usage = self.usage
        usage.calls += 1
        usage.prompt_tokens += len(prompt.tokens)
        computed: int | None = None
        try:
            answers = await self.scorer.score([prompt])
            computed = getattr(answers, "computed_tokens", None)
        finally:
            # How far a call that failed got is not known.
            known = computed is not None and usage.computed_tokens is not None
            usage.computed_tokens = (
                (usage.computed_tokens or 0) + (computed or 0) if known else None
            )
        return answers


def _by_token(score: RangeScore, span: tuple[int, int]) -> tuple[float, ...] | None:
    """The values of a range's tokens, where there is one for each and they make up the total."""
    start, end = span
    if score.values is None or len(score.values) != end - start:
        return None
    apart = abs(math.fsum(score.values) - score.total)
    return score.values if apart <= ROUNDING * (end - start) else None


def _keys(prompt: WirePrompt) -> Iterator[Key]:
    """What determines each range's total: the ids up to its end, the images, and its start."""
    digest = blake2b(digest_size=16)
    for image in prompt.images:
        digest.update(f"{image.mime} {len(image.data)} ".encode() + image.data)
    done = 0
    for start, end in prompt.ranges:
        digest.update(array("q", prompt.tokens[done:end]).tobytes())
        done = end
        yield digest.copy().digest(), start
