"""Memories whose effects may not add up: they are removed together, and measured."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mindhooks import Context, MindhooksError
from mindscore._util.errors import format_error
from mindscore.measure.interactions import (
    Interaction,
    NeedCandidate,
    RedundantGroup,
    confirmed,
    find_interactions,
    need_candidates,
    redundant_candidates,
)
from mindscore.measure.leave_one_out import Divergences, LeaveOneOut
from mindscore.measure.memories import skip_all
from mindscore.measure.prompts import whole_prompt
from mindscore.measure.screening.budget import spent_tokens
from mindscore.measure.screening.receipt import ScreenReceipt

if TYPE_CHECKING:
    from mindscore.flows.memory import MemoryRun
    from mindscore.flows.run import FlowRun

log = logging.getLogger("mindscore")

Keys = tuple[str, ...]

Check = Callable[[], Awaitable[None]]
"""Raises ``ScorerError`` where the model's weights are not those of the run's baseline any more."""


@dataclass(frozen=True, slots=True)
class Untried:
    """Sets of memories that may hide or need each other, and were not removed together."""

    sets: tuple[Keys, ...]


SHARE = 0.02
"""Share of the exact matrix's cost that a screened one without holds may spend on this."""


async def confirm_interactions(
    run: MemoryRun, window: range, require_unchanged: Check, *, screened: bool
) -> None:
    """Remove together memories that may hide or need each other, one prompt for each set.

    Candidates come from the rows of the run, in a ``screened`` matrix from those that are exact.
    What does not add up goes to the registry's stash.
    """
    rows = [run.rows[memory.key] for memory in run.memories if memory.key in run.rows]
    groups = redundant_candidates(rows)
    has_hold = any(row.hold for row in rows)
    of_all = await run.compared.known_drop(window, skip_all) if has_hold else {}
    candidates: list[RedundantGroup | NeedCandidate] = [*groups, *need_candidates(rows, of_all)]
    asked: dict[Keys, set[str]] = {}
    for candidate in candidates:
        asked.setdefault(candidate.keys, set()).update(candidate.node_ids)
    sets = list(asked)
    together = await _removed_together(run, window, sets, require_unchanged, screened=screened)
    found = {
        keys: list(find_interactions(keys, asked[keys], rows, without))
        for keys, without in together.items()
    }
    hidden = (confirmed(group, found.get(group.keys, ())) for group in groups)
    stash = run.registry.stash
    stash[RedundantGroup] = tuple(group for group in hidden if group is not None)
    stash[Interaction] = tuple(it for its in found.values() for it in its)
    stash[Untried] = Untried(tuple(keys for keys in sets if keys not in together))


async def _removed_together(
    run: MemoryRun,
    window: range,
    sets: Sequence[Keys],
    require_unchanged: Check,
    *,
    screened: bool,
) -> dict[Keys, Divergences]:
    """Return the effect of removing each of ``sets``, while tokens last and none fails."""
    found: dict[Keys, Divergences] = {}
    allowance = _Allowance(run, len(await whole_prompt(run.context)), screened=screened)
    others = [keys for keys in sets if not is_printable_without(run.context, keys)]
    reprinted = await reprinted_without(run, others) if others else None
    try:
        for keys in sets:
            compared = reprinted if keys in others else run.compared
            if compared is None:
                continue
            if not allowance.has_room():
                log.info("no tokens are left to remove more memories together")
                break
            row = await compared.drop(window, set(keys).__contains__)
            await require_unchanged()
            found[keys] = row
    # What was measured is not lost with it: the others are not named.
    except Exception as error:
        log.warning("memories removed together: %s", format_error(error))
    return found


class _Allowance:
    """The tokens that a run may spend on removing memories together.

    A screened matrix stays below the cost of the exact one.
    """

    def __init__(self, run: MemoryRun, length: int, *, screened: bool) -> None:
        self._run = run
        self._length = length
        self._receipt: ScreenReceipt | None = None
        if screened:
            self._receipt = run.registry.stash[ScreenReceipt]
        self._before = spent_tokens(run.usage)

    def has_room(self) -> bool:
        """Return whether another prompt may be sent; none is longer than the conversation."""
        run, receipt, length = self._run, self._receipt, self._length
        limit = run.options.max_tokens
        # The baseline may have to be sent, too.
        if limit and run.usage.prompt_tokens + 2 * length > limit:
            return False
        if receipt is None or (run.options.hold and not receipt.estimated):
            return True
        taken = spent_tokens(run.usage).minus(self._before).in_unit(receipt.unit) + length
        share = 1.0 if run.options.hold else SHARE
        room = min(receipt.exact_tokens - receipt.spent_tokens, share * receipt.exact_tokens)
        return taken <= room


def is_printable_without(context: Context, keys: Sequence[str]) -> bool:
    """Return whether the context's messages can be printed without the memories ``keys``.

    A message that prints many memories is prepared without few sets of them.
    """
    if context.prompts is not None:
        return True
    for node in (*context.system, *context.identity, *context.conversation):
        printed = {part.memory_key for part in node.parts}
        without = frozenset(key for key in keys if key in printed)
        try:
            if without and node.render is not None:
                node.render(without)
        # A host's own may raise anything.
        except Exception:
            return False
    return True


async def reprinted_without(run: FlowRun, sets: Sequence[Sequence[str]]) -> LeaveOneOut | None:
    """Return comparisons in which each of ``sets`` can be left out; ``None``: there are none.

    The mind is asked to print the conversation anew, which a session can. What was scored of the
    same prompts is in the cache.
    """
    context_without = getattr(run.mind, "context_without", None)
    try:
        if context_without is None:
            raise MindhooksError("the host cannot print its messages without them")
        context = await context_without([frozenset(keys) for keys in sets])
        if await whole_prompt(context) != await whole_prompt(run.context):
            raise MindhooksError("the conversation has changed meanwhile")
    except MindhooksError as error:
        log.warning("memories removed together: %s", format_error(error))
        return None
    return LeaveOneOut(run.cached, context, run.noise)
