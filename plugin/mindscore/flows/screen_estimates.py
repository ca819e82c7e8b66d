"""Estimate the effects of memories: hide them, hold them alone, or remove groups of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mindhooks import ScorerCapabilities, ScorerError
from mindscore._util.aio import gather_ordered
from mindscore._util.errors import format_error
from mindscore.flows.confirming import Check, is_printable_without, reprinted_without
from mindscore.flows.run import FlowRun
from mindscore.measure.leave_one_out import LeaveOneOut
from mindscore.measure.retry import BreakerError
from mindscore.measure.screening.budget import ScreenBudget, passes_within
from mindscore.measure.screening.groups import GroupSearch, divide
from mindscore.measure.screening.short_prompts import ShortPrompts, beyond_any
from mindscore.measure.screening.spans import NO_TOKENS, Tokens

PER_CALL = 64
"""Memories that are hidden by one call, each from all responses behind it."""

SCREEN_SHARE = 0.25
"""Share of the exact cost that removing groups may take."""

DENSE = 0.5
"""Share of the memories in groups that matter, above which dividing these all is no screen."""

CONCENTRATED = 0.7
"""Share of what does not add up that one half of the memories must do to be looked into."""

DENSE_REMARK = "many memories matter: to divide groups of them would cost more than it saves"

Cells = dict[str, dict[int, float]]
"""Nats by memory and response, which are numbered in order."""


class Estimator:
    """Estimates the effects of memories on the responses of a window, numbered by ``numbers``.

    ``judging`` are those that are measured anyway. ``show`` is told how far a screen has come;
    ``spent`` are the tokens that estimates have taken.
    """

    def __init__(
        self,
        run: FlowRun,
        window: range,
        judging: Collection[str],
        numbers: Mapping[str, int],
        budget: ScreenBudget,
        show: Callable[[int, int], None],
        require_unchanged: Check,
    ) -> None:
        self._run = run
        self._window = window
        self._judging = judging
        self._numbers = numbers
        self._budget = budget
        self._show = show
        self._require_unchanged = require_unchanged
        self._short = ShortPrompts.of(run.context, window, budget.spans, numbers)
        self.spent = NO_TOKENS

    @contextmanager
    def _counted(self) -> Iterator[None]:
        started = self._budget.spent
        try:
            yield
        finally:
            self.spent = self.spent.plus(self._budget.spent.minus(started))

    @property
    def can_hide(self) -> bool:
        """True if the scorer can hide memories from responses."""
        return ScorerCapabilities.of(self._run.scorer).knock_out is not None

    async def knock_out(self, keys: Sequence[str], reserve: Tokens) -> tuple[Cells, str | None]:
        """Return the estimates of the first of ``keys`` that fit, and why the scorer cannot go on.

        ``reserve`` is left over.

        Raises:
            BreakerError: too many calls in a row have failed.
        """
        totals = await self._run.compared.baseline(self._window, self._judging)
        spans, found = self._budget.spans, Cells()
        for first in range(0, len(keys), PER_CALL):
            self._show(first, len(keys))
            batch = list(keys[first : first + PER_CALL])
            while batch and not self._budget.fits(spans.hiding(batch).plus(reserve)):
                batch.pop()
            estimates: Cells = {key: {} for key in batch}
            for index, prompt in enumerate(spans.prompts):
                its = [key for key in batch if spans.to_hide(key, index)]
                hidden = [spans.to_hide(key, index) for key in its]
                tokens = spans.hiding(its, index).sent
                try:
                    with self._counted():
                        rows = (
                            await self._run.cached.knock_out(prompt, hidden, tokens) if its else []
                        )
                except BreakerError:
                    raise
                except ScorerError as error:
                    return found, format_error(error)
                await self._require_unchanged()
                for key, row in zip(its, rows, strict=True):
                    behind = spans.behind([key], index)
                    for node_id in behind & row.keys() & totals.keys():
                        nats = totals[node_id] - row[node_id]
                        estimates[key][self._numbers[node_id]] = nats
            found |= estimates
            if len(batch) < min(PER_CALL, len(keys) - first):
                break
        return found, None

    async def removing(self, sets: Sequence[Sequence[str]]) -> list[dict[int, float]] | None:
        """Return what removing each of ``sets`` does to each response behind its first memory.

        ``None``: the host cannot print its messages without them.

        Raises:
            ScorerError: the scorer failed.
        """
        done, context = 0, self._run.context
        compared: LeaveOneOut | None = self._run.compared
        if not all(is_printable_without(context, keys) for keys in sets):
            compared = await reprinted_without(self._run, sets)
        if compared is None:
            return None
        drop = compared.drop

        async def remove(keys: Sequence[str]) -> dict[int, float]:
            nonlocal done
            gone = frozenset(keys)
            row = await drop(self._window, gone.__contains__, self._judging)
            await self._require_unchanged()
            done += 1
            self._show(done, len(sets))
            behind = self._budget.spans.behind(keys)
            return {self._numbers[it.node_id]: it.signed for it in row if it.node_id in behind}

        with self._counted():
            return await gather_ordered(remove, sets, self._run.settings.server.concurrency)

    def can_hold(self, keys: Sequence[str], reserve: Tokens) -> bool:
        """Return whether each of ``keys`` may be held alone, with ``reserve`` left over."""
        if self._short is None:
            return False
        cost, share = self._short.cost(keys), self._budget.rows.times(SCREEN_SHARE)
        return cost.within(share) and self._budget.fits(cost.plus(reserve))

    async def hold(self, keys: Sequence[str]) -> Cells:
        """Return what each of ``keys`` does alone, beyond what any does, by short prompts.

        Raises:
            ScorerError: the scorer failed.
        """
        short, done = self._short, 0
        assert short is not None  # noqa: S101 - as can_hold says
        cached, limit = self._run.cached, self._run.settings.server.concurrency

        async def total(response: str, key: str | None) -> float:
            return (await cached.score(short.prompt(response, key)))[response]

        async def alone(key: str) -> dict[int, float]:
            nonlocal done
            its = short.responses(key)
            found = {it: await total(it, key) - await total(it, None) for it in its}
            await self._require_unchanged()
            done += 1
            self._show(done, len(keys))
            return {self._numbers[it]: nats for it, nats in found.items()}

        with self._counted():
            rows = await gather_ordered(alone, keys, limit)
        return beyond_any(dict(zip(keys, rows, strict=True)))

    async def remove(self, keys: Sequence[str]) -> dict[int, float] | None:
        """Return what removing ``keys`` does to each response; ``None``: no tokens are left.

        Raises:
            ScorerError: the scorer failed.
        """
        if not self._budget.fits(self._budget.spans.removing(keys)):
            return None
        effects = await self.removing([keys])
        return effects[0] if effects else None

    async def follow(self, keys: Sequence[str], leads: Mapping[int, float]) -> str | None:
        """Return the memory behind the largest of ``leads``, which ``keys`` do together.

        The half that does most of it is divided, until it is one memory, or neither half does.

        Raises:
            ScorerError: the scorer failed.
        """
        response = max(leads, key=lambda it: abs(leads[it]))
        spans = self._budget.spans
        keys = [it for it in keys if spans.place(it, self._numbers).reach <= response]
        while len(keys) > 1:
            for half in divide(keys, dict.fromkeys(keys, 1.0), 2):
                effects = await self.remove(half)
                if effects is None:
                    return None
                if effects.get(response, 0.0) / leads[response] >= CONCENTRATED:
                    keys = half
                    break
            else:
                return None
        return keys[0]

    async def divide(self, search: GroupSearch, share: Tokens, each: Tokens) -> str | None:
        """Divide the groups of ``search`` until tokens of ``share`` are spent; return why it ended.

        ``each`` is the most that one prompt takes.

        Raises:
            ScorerError: the scorer failed.
        """
        started = self._budget.spent
        while not search.is_done:
            spent = self._budget.spent.minus(started)
            room = passes_within(share.minus(spent), each)
            sets = search.passes(room // search.rounds_left or room)
            needed = len(sets) * search.rounds_left
            if not sets or (needed > room and search.live_share() > DENSE):
                return DENSE_REMARK
            effects = await self.removing(sets)
            if effects is None:
                break
            search.take(effects)
        return None
