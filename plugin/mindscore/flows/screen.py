"""Screen the matrix: estimate every memory cheaply, measure what stands out, say what is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace

from mindhooks import in_thread
from mindscore.config.settings import MemoryScoringOptions
from mindscore.flows.confirming import Check
from mindscore.flows.run import FlowRun
from mindscore.flows.screen_estimates import SCREEN_SHARE, Cells, Estimator
from mindscore.measure.leave_one_out import Divergences
from mindscore.measure.memories import Memory
from mindscore.measure.screening.budget import ScreenBudget
from mindscore.measure.screening.choice import (
    added_up,
    draw,
    errors,
    rank_correlation,
    to_confirm,
    top_found,
    usual_effects,
    weights_of_words,
)
from mindscore.measure.screening.groups import GroupSearch, first_groups, unexplained
from mindscore.measure.screening.plain import remarks_on_rest
from mindscore.measure.screening.receipt import (
    Estimate,
    ScreenReceipt,
    ScreenTrial,
    missed_bounds,
)
from mindscore.measure.screening.short_prompts import scale_of
from mindscore.measure.screening.spans import NO_TOKENS, MemorySpans, Tokens
from mindscore.measure.screening.words import common_words

Emit = Callable[[Sequence[Memory], Callable[[Memory, Divergences], None]], Awaitable[None]]
"""Measures memories and emits their scores; each row is handed over before that."""

Show = Callable[[int, int], None]
"""Shows how many steps of how many are done."""

CHEAPER = 0.8
"""Share of the exact cost that a screen must be expected to stay within."""

EXPECTED = 0.05
"""Share of the memories that a screen is expected to point at."""

TARGET = 0.29
"""Share of the exact cost that a run stays within, but for estimates that are sure to be much."""

IN_A_ROW = 8
"""Memories in a row that turn out to do less than estimated, after which no more are tried."""

FIRST_SUSPECTS = 2
"""Memories that are measured for their words where groups matter, before it shows to be right."""

FEWEST_SUSPECTS = 4
"""Groups that share responses, below which to divide them takes few prompts."""

TRIAL = 4
"""Memories that are measured at the start, to see what words in common are worth."""

WORTH = 0.5
"""Share of responses whose largest effect words in common must find to order the groups."""


class Screening:
    """A matrix of which some rows are measured, and the others estimated.

    ``memories`` are those to score, in the order in which rows are measured; ``known`` have rows
    already; ``judging`` are the responses that any of them may matter to, whose baseline is known;
    ``spans`` are those of all memories.
    """

    def __init__(
        self,
        run: FlowRun,
        options: MemoryScoringOptions,
        window: range,
        memories: Sequence[Memory],
        known: Collection[str],
        judging: Collection[str],
        spans: MemorySpans,
        emit: Emit,
        show: Show,
        require_unchanged: Check,
    ) -> None:
        self._run = run
        self._options = options
        self._window = window
        self._memories = {memory.key: memory for memory in memories}
        self._known = known
        self._judging = judging
        self._spans = spans
        self._emit = emit
        self._show = show
        self._require_unchanged = require_unchanged
        self._least = run.settings.memory.screen_confirm_nats
        self._rows: Cells = {}
        self._done: set[str] = set()
        self._estimates: Cells = {}
        self._receipt = ScreenReceipt("exact")

    async def carry_out(self) -> None:
        """Screen, confirm, sample, and look into what does not add up, while tokens last.

        Raises:
            ScorerError: the scorer failed.
        """
        await self._read()
        stash = self._run.registry.stash
        try:
            await self._screen()
        except BaseException:
            self._remark("the screen was cut off before its end: nothing is said of the rest")
            stash[ScreenReceipt] = self._account()
            raise
        unseen = len(self._left()) - len(self._unmeasured()) if self._options.max_tokens else 0
        self._remark(*remarks_on_rest(self._unmeasured(), self._least, unseen))
        # Hundreds of thousands of estimates take longer than a host may be held up.
        stash[ScreenReceipt] = await in_thread(self._account)

    async def _screen(self) -> None:
        await self._measure(self._free())
        left = self._left()
        if self._is_exact_better(left):
            await self._measure(left)
            return
        await self._estimate(left)
        await self._confirm()
        rest = self._left()
        sampled = await self._sample(rest)
        together = await self._together()
        exact = {key: self._rows[key] for key in sampled if key in self._estimates}
        middle, high = errors(self._estimates, exact)
        self._receipt = replace(
            self._receipt,
            sampled=tuple(sampled),
            together=together,
            missed=missed_bounds({key: self._largest(key) for key in rest}, sampled),
            error_median=middle,
            error_p95=high,
            rank_correlation=rank_correlation(self._estimates, exact),
        )

    def _account(self) -> ScreenReceipt:
        """Return the account of what was measured and estimated so far."""
        left = self._left()
        nodes = {number: node_id for node_id, number in self._numbers.items()}
        places = {node.id: at for at, node in enumerate(self._run.context.conversation)}
        its = (
            Estimate(key, nodes[number], places[nodes[number]], nats)
            for key in left
            for number, nats in sorted(self._estimates.get(key, {}).items())
        )
        budget = self._budget
        return replace(
            self._receipt,
            exact=tuple(key for key in self._memories if key in self._rows),
            estimated=tuple(key for key in left if key in self._estimates),
            not_looked_at=tuple(key for key in left if key not in self._estimates),
            estimates=tuple(its),
            unit=budget.unit,
            spent_tokens=budget.in_unit(budget.spent),
            screen_tokens=budget.in_unit(self._estimator.spent),
            exact_tokens=budget.in_unit(budget.exact),
        )

    async def _read(self) -> None:
        """Find the responses and the memories' spans, and count what exact rows would take."""
        run, context = self._run, self._run.context
        totals = await run.compared.baseline(self._window, self._judging)
        ids = [node.id for node in context.conversation if node.id in totals]
        self._numbers = {node_id: number for number, node_id in enumerate(ids)}
        spans = self._spans.among(totals.keys())
        keys = [key for key in self._memories if key not in self._known]
        hold, most = self._options.hold, self._options.max_tokens
        self._budget = ScreenBudget(spans, run.usage, keys, hold=hold, max_tokens=most)
        given = (self._numbers, self._budget, self._show, self._require_unchanged)
        self._estimator = Estimator(run, self._window, self._judging, *given)

    def _free(self) -> list[str]:
        """Return the memories whose rows are known, or that have no tokens, such as images."""
        ids = self._budget.spans.ids
        return [it for it in self._memories if it in self._known or not ids(it)]

    def _left(self) -> list[str]:
        return [key for key in self._memories if key not in self._done]

    def _unmeasured(self) -> Cells:
        return {key: its for key, its in self._estimates.items() if key not in self._done}

    def _is_exact_better(self, keys: Sequence[str]) -> bool:
        """Return whether measuring all of ``keys`` fits, and is about as cheap as a screen."""
        budget, count = self._budget, len(keys)
        rows = budget.cost(keys)
        if not budget.fits(rows) or not count:
            return not count
        points = self._run.settings.memory.screen_sample + 1 + EXPECTED * count
        expected = rows.times(min(1.0, points / count))
        if self._estimator.can_hide:
            expected = expected.plus(self._estimator.hiding_cost(keys))
        else:
            passes = first_groups(count)
            passes += (-(-count // passes) - 1).bit_length() + TRIAL
            expected = expected.plus(self._budget.each.times(passes))
        if expected.within(rows.times(CHEAPER)):
            return False
        self._remark("screening would not have been cheaper: every memory was measured")
        return True

    async def _estimate(self, keys: Sequence[str]) -> None:
        """Estimate ``keys`` by the best method that the scorer has and the tokens allow."""
        spans = self._budget.spans
        ids = {key: spans.ids(key) for key in keys}
        words = common_words(self._run.context, self._window, ids)
        self._words = {
            key: {self._numbers[it]: score for it, score in its.items() if it in self._numbers}
            for key, its in words.items()
        }
        ordered = sorted(keys, key=lambda key: -max(self._words[key].values(), default=0.0))
        if self._estimator.can_hide:
            self._receipt = replace(self._receipt, method="knock-out")
            # What is known when a run is cut off goes into its receipt.
            failed = await self._estimator.knock_out(ordered, self._reserve(), self._estimates)
            if failed is None:
                return
            self._remark(f"memories cannot be hidden from responses: {failed}")
            self._estimates = {}
        await self._estimate_by_passes(ordered)

    async def _estimate_by_passes(self, ordered: Sequence[str]) -> None:
        """Estimate by what a trial on a few memories shows to rank best.

        They are held alone by short prompts where that does, else removed in groups; where there
        are no tokens for that, words tell which ones to measure.
        """
        words, scale = await self._try(ordered)
        by_words = [key for key in ordered if key not in self._done]
        if scale:
            self._receipt = replace(self._receipt, method="hold")
            held = await self._estimator.hold(by_words)
            self._estimates = {
                key: {at: scale * nats for at, nats in its.items()} for key, its in held.items()
            }
        elif not await self._remove_groups(by_words, words):
            self._receipt = replace(self._receipt, method="words")
            fits = self._budget.fits(self._budget.cost(by_words))
            await self._measure(by_words, NO_TOKENS if fits else self._reserve())

    async def _remove_groups(self, ordered: Sequence[str], trial: ScreenTrial) -> bool:
        """Remove groups of memories, and divide those that matter; return whether that was done."""
        budget, each, among = self._budget, self._budget.each, {*ordered}
        left = [key for key in self._left() if key in among]
        passes = first_groups(len(left)) if left else 0
        if not left or not budget.fits(each.times(passes).plus(self._reserve())):
            return False
        is_worth = trial.top_found is not None and trial.top_found >= WORTH
        left = list(ordered) if is_worth else left
        words = self._words if is_worth else {}
        places = {key: budget.spans.place(key, self._numbers) for key in left}
        usual = usual_effects(self._rows, len(self._numbers))
        search = GroupSearch(places, weights_of_words(left, words), self._least, usual)
        first = search.first_passes()
        try:
            effects = await self._estimator.removing(first)
            if effects is None:
                return False
            self._receipt = replace(self._receipt, method="groups")
            search.take_first(first, effects)
            await self._measure_suspects(search)
            share = budget.rows.times(SCREEN_SHARE)
            ended = await self._estimator.divide(search, share, each)
            if ended:
                self._remark(ended)
        finally:
            self._estimates = search.estimates(words)
        return True

    async def _measure_suspects(self, search: GroupSearch) -> None:
        """Measure what words in common say of groups that matter, for as long as they are right."""
        keys, count = search.suspects(self._words), FIRST_SUSPECTS
        if len(keys) < FEWEST_SUSPECTS:
            return
        while keys := search.suspects(self._words)[:count]:
            await self._measure(keys, self._reserve())
            measured = [key for key in keys if key in self._rows]
            hits = sum(search.explain(key, self._rows[key]) for key in measured)
            if hits <= len(keys) / 2:
                break
            count = IN_A_ROW

    async def _try(self, ordered: Sequence[str]) -> tuple[ScreenTrial, float]:
        """Measure a few memories, by words and at random, and compare methods with them.

        Return how words in common did, and what to multiply by what memories do alone: 0.0 unless
        the tokens allow to hold each, and that ranks as well and says most of what was measured.
        """
        count = min(TRIAL, len(ordered) // 2)
        half, seed = ordered[len(ordered) // 2 :], f"trial {self._run.context.id}"
        chosen = [*ordered[: count // 2], *draw(half, count - count // 2, seed)]
        started = self._budget.spent
        await self._measure(chosen, self._reserve())
        measured = {key: self._rows[key] for key in chosen if key in self._rows}

        def trial(method: str, estimates: Cells, started: Tokens) -> ScreenTrial:
            found = ScreenTrial(
                method,
                rank_correlation(estimates, measured),
                top_found(estimates, measured, self._least),
                self._budget.in_unit(self._budget.spent.minus(started)),
            )
            self._receipt = replace(self._receipt, trials=(*self._receipt.trials, found))
            return found

        words = trial("words", self._words, started)
        if words.top_found is None or not self._estimator.can_hold(ordered, self._reserve()):
            return words, 0.0
        started = self._budget.spent
        alone = await self._estimator.hold(list(measured))
        held = trial("hold", alone, started)
        ranks = (held.top_found or 0.0, held.rank_correlation or 0.0)
        ranks_well = ranks >= (words.top_found, words.rank_correlation or 0.0)
        return words, scale_of(alone, measured) if ranks_well else 0.0

    async def _measure(
        self, keys: Iterable[str], reserve: Tokens = NO_TOKENS, limit: Tokens | None = None
    ) -> None:
        """Measure and emit the first of ``keys`` that fit, with ``reserve`` left over."""
        left = (it for it in keys if it not in self._done)
        chosen = self._budget.affordable(left, reserve, limit)
        if chosen:
            await self._emit([self._memories[key] for key in chosen], self._take)
            # Those that failed, too: they have an outcome, and are neither measured nor estimated.
            self._done.update(chosen)
            self._budget.bare_is_measured()

    async def _confirm(self) -> None:
        """Measure what the estimates point at, the most telling first.

        It ends where ``IN_A_ROW`` memories turn out to do less; what is not sure, with ``TARGET``.
        """
        sure, others = to_confirm(self._unmeasured(), self._least)
        reserve, target = self._reserve(), self._budget.exact.times(TARGET)
        for keys, limit in ((sure, None), (others, target)):
            for first in range(0, len(keys), IN_A_ROW):
                batch = keys[first : first + IN_A_ROW]
                await self._measure(batch, reserve, limit)
                if all(self._largest(key) < self._least for key in batch):
                    break

    def _take(self, memory: Memory, row: Divergences) -> None:
        behind = self._budget.spans.behind([memory.key])
        self._done.add(memory.key)
        self._rows[memory.key] = {
            self._numbers[it.node_id]: it.signed
            for it in row
            if it.node_id in behind and it.node_id in self._numbers
        }

    def _reserve(self) -> Tokens:
        """Return what the random sample takes, and one prompt without all that is left."""
        left = self._left()
        count = min(self._run.settings.memory.screen_sample, len(left))
        if not count:
            return NO_TOKENS
        # No more than a part of what is left: a sample alone finds nothing.
        whole = self._budget.limit.minus(self._budget.spent)
        sample = self._budget.cost(left).times(count / len(left)).plus(self._budget.each)
        return sample if sample.within(whole.times(0.5)) else whole.times(0.25)

    async def _sample(self, rest: Sequence[str]) -> list[str]:
        """Measure some of ``rest`` at random; return those that were."""
        # Where they do not all fit, the cheapest must not be likelier to be measured than others.
        count = self._budget.affordable_any(rest, self._run.settings.memory.screen_sample)
        # Not as an earlier run drew: what that has found is known, and what lies beside it is not.
        seed = " ".join((self._run.context.id, *sorted(self._known)))
        drawn = draw(sorted(rest), count, seed)
        await self._measure(drawn)
        return [key for key in drawn if key in self._rows]

    async def _together(self) -> float | None:
        """Remove what is left together, measure what that points at, and remove the rest again."""
        left = list(self._unmeasured())
        effects = await self._estimator.remove(left) if len(left) > 1 else None
        leads = unexplained(effects or {}, added_up(self._unmeasured()))
        if leads and (pointed := await self._estimator.follow(left, leads)):
            await self._measure([pointed])
            left = list(self._unmeasured())
            effects = await self._estimator.remove(left) if len(left) > 1 else None
        return max((effects or {}).values(), key=abs, default=None)

    def _largest(self, key: str) -> float:
        return max(map(abs, self._rows.get(key, {}).values()), default=0.0)

    def _remark(self, *lines: str) -> None:
        self._receipt = replace(self._receipt, remarks=(*self._receipt.remarks, *lines))
