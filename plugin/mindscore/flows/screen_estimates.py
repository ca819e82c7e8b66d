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
from mindscore.measure.prompts import ask_only
from mindscore.measure.retry import BreakerError
from mindscore.measure.screening.budget import ScreenBudget, passes_within
from mindscore.measure.screening.groups import GroupSearch, divide
from mindscore.measure.screening.hiding import HiddenGroups
from mindscore.measure.screening.short_prompts import ShortPrompts, beyond_any
from mindscore.measure.screening.spans import NO_TOKENS, Tokens

PER_CALL = 64
"""Sets of memories that are hidden by one call, each from all responses behind it."""

HIDING_SHARE = 0.12
"""Share of the exact cost that hiding memories may take."""

SCREEN_SHARE = 0.25
"""Share of the exact cost that removing groups may take."""

CONCENTRATED = 0.7
"""Share of what does not add up that one half of the memories must do to be looked into."""

DENSE = 0.5
"""Share of the memories in groups that matter, above which dividing these all is no screen."""

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

    async def knock_out(self, keys: Sequence[str], reserve: Tokens, found: Cells) -> str | None:
        """Add to ``found`` the estimates of the first of ``keys`` that fit, with ``reserve`` left.

        Return why the scorer cannot go on, or ``None``.

        Raises:
            BreakerError: too many calls in a row have failed.
            ScorerError: the model's weights were replaced meanwhile.
        """
        for index in range(len(self._budget.spans.prompts)):
            left = list(keys)
            groups = self._groups(left, index)
            while left and not self._budget.fits(groups.cost.plus(reserve)):
                left = left[: len(left) * 3 // 4]
                groups = self._groups(left, index)
            try:
                await self._hide_groups(groups, index, reserve, found)
            except BreakerError:
                raise
            except ScorerError as error:
                return format_error(error)
            try:
                await self._require_unchanged()
            except ScorerError:
                # Of which weights they are is not known.
                found.clear()
                raise
        return None

    def hiding_cost(self, keys: Sequence[str]) -> Tokens:
        """Return the tokens that estimates of ``keys`` are expected to take."""
        cost = NO_TOKENS
        for index in range(len(self._budget.spans.prompts)):
            cost = cost.plus(self._groups(keys, index).cost.times(2))
        return cost

    def _groups(self, keys: Sequence[str], index: int) -> HiddenGroups:
        spans = self._budget.spans
        its = [key for key in keys if spans.to_hide(key, index)]
        share = self._budget.rows.times(HIDING_SHARE / len(spans.prompts))
        return HiddenGroups(spans, index, its, share)

    async def _hide_groups(
        self, groups: HiddenGroups, index: int, reserve: Tokens, found: Cells
    ) -> None:
        """Hide groups in one prompt, and the members of those that matter one by one."""
        spans = self._budget.spans
        effects = await self._hide(groups.groups, index, groups.lead)
        for group, its in zip(groups.groups, effects, strict=True):
            behind = [(key, spans.behind([key], index)) for key in group]
            for node_id, nats in its.items():
                members = [key for key, responses in behind if node_id in responses]
                for key in members:
                    cells = found.setdefault(key, {})
                    cells[self._numbers[node_id]] = nats / len(members)
        for group, responses in groups.to_divide(effects).items():
            singles = [(key,) for key in group]
            cost = spans.hiding(singles, index, groups.rows(responses))
            if not self._budget.fits(cost.plus(reserve)):
                break
            for key, its in zip(
                group, await self._hide(singles, index, groups.lead, responses), strict=True
            ):
                for node_id, nats in its.items():
                    found[key][self._numbers[node_id]] = nats

    async def _hide(
        self,
        sets: Sequence[tuple[str, ...]],
        index: int,
        lead: int,
        responses: Collection[str] | None = None,
    ) -> list[dict[str, float]]:
        """Return what hiding each of ``sets`` does to those of ``responses`` behind it, or all."""
        totals = await self._run.compared.baseline(self._window, self._judging)
        spans, prompt = self._budget.spans, self._budget.spans.prompts[index]
        asked = totals.keys() if responses is None else totals.keys() & responses
        rows = spans.rows(index, lead)
        leads = dict(zip(prompt.node_ids, spans.leads(index, lead), strict=True))
        its = ask_only(prompt, asked)
        found = []
        for first in range(0, len(sets), PER_CALL):
            some = sets[first : first + PER_CALL]
            hidden = [[it for key in keys for it in spans.to_hide(key, index)] for keys in some]
            tokens = spans.hiding(some, index, [rows[node_id] for node_id in its.node_ids])
            with self._counted():
                answers = await self._run.cached.knock_out(
                    its, hidden, tokens.computed, [leads[node_id] for node_id in its.node_ids]
                )
            for keys, row in zip(some, answers, strict=True):
                behind = spans.behind(keys, index) & row.keys()
                found.append({node_id: totals[node_id] - row[node_id] for node_id in behind})
        return found

    async def removing(
        self, sets: Sequence[Sequence[str]], ends: Sequence[int] = ()
    ) -> list[dict[int, float]] | None:
        """Return what removing each of ``sets`` does to each response behind its first memory.

        ``ends`` are the last responses that matter, where these are known: prompts end there.
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

        async def remove(asked: tuple[Sequence[str], int]) -> dict[int, float]:
            nonlocal done
            keys, end = asked
            gone = frozenset(keys)
            only = {it for it, number in self._numbers.items() if number <= end}
            row = await drop(self._window, gone.__contains__, self._judging, only=only)
            await self._require_unchanged()
            done += 1
            self._show(done, len(sets))
            behind = self._budget.spans.behind(keys)
            return {self._numbers[it.node_id]: it.signed for it in row if it.node_id in behind}

        with self._counted():
            limit, last = self._run.settings.server.concurrency, len(self._numbers)
            asked = list(zip(sets, ends or [last] * len(sets), strict=True))
            return await gather_ordered(remove, asked, limit)

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

    async def remove(self, keys: Sequence[str], end: int | None = None) -> dict[int, float] | None:
        """Return what removing ``keys`` does to each response, to that numbered ``end``, if given.

        ``None``: no tokens are left.

        Raises:
            ScorerError: the scorer failed.
        """
        if not self._budget.fits(self._budget.spans.removing(keys)):
            return None
        effects = await self.removing([keys], [] if end is None else [end])
        return effects[0] if effects else None

    async def follow(self, keys: Sequence[str], leads: Mapping[int, float]) -> str | None:
        """Return the memory behind the largest of ``leads``, which ``keys`` do together.

        The half that does most of it is divided, until it is one memory, or neither half does.
        The second is not looked at where the first does a part of it.

        Raises:
            ScorerError: the scorer failed.
        """
        response = max(leads, key=lambda it: abs(leads[it]))
        spans = self._budget.spans
        keys = [it for it in keys if spans.place(it, self._numbers).reach <= response]
        while len(keys) > 1:
            for half in divide(keys, dict.fromkeys(keys, 1.0), 2):
                effects = await self.remove(half, response)
                if effects is None:
                    return None
                part = effects.get(response, 0.0) / leads[response]
                if part >= CONCENTRATED:
                    keys = half
                    break
                if part > 1 - CONCENTRATED:
                    return None
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
            effects = await self.removing(sets, search.ends)
            if effects is None:
                break
            search.take(effects)
        return None
