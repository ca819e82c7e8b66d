"""Groups of memories that may hide each other: each is removed together, and measured."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mindhooks import Context, MindhooksError
from mindscore._util.errors import format_error
from mindscore.measure.divergence import RedundantGroup, confirmed, redundant_candidates
from mindscore.measure.leave_one_out import LeaveOneOut
from mindscore.measure.prompts import whole_prompt

if TYPE_CHECKING:
    from mindscore.flows.memory import MemoryRun

log = logging.getLogger("mindscore")


async def confirm_redundant(run: MemoryRun, window: range) -> None:
    """Remove each group that may hide each other together, one prompt a group."""
    rows = [run.rows[memory.key] for memory in run.memories if memory.key in run.rows]
    found = []
    length = len(await whole_prompt(run.context))
    groups = redundant_candidates(rows)
    others = [it for it in groups if not _is_printable_without(run.context, it)]
    reprinted = await _reprinted(run, others) if others else None
    for group in groups:
        compared = reprinted if group in others else run.compared
        if compared is None:
            continue
        limit = run.options.max_tokens
        if limit and run.usage.prompt_tokens + 2 * length > limit:
            log.info("no tokens are left to confirm memories that may hide each other")
            break
        try:
            without = await compared.drop(window, set(group.keys).__contains__)
        # What was measured is not lost with it: the group is not named.
        except Exception as error:
            log.warning("memories that may hide each other: %s", format_error(error))
            break
        found.append(confirmed(group, without))
    run.registry.stash[RedundantGroup] = tuple(it for it in found if it is not None)


def _is_printable_without(context: Context, group: RedundantGroup) -> bool:
    """Return whether the context's messages can be printed without the memories of ``group``.

    A message that prints many memories is prepared without few sets of them.
    """
    if context.prompts is not None:
        return True
    for node in (*context.system, *context.identity, *context.conversation):
        keys = {part.memory_key for part in node.parts} & set(group.keys)
        try:
            if keys and node.render is not None:
                node.render(frozenset(key for key in keys if key is not None))
        # A host's own may raise anything.
        except Exception:
            return False
    return True


async def _reprinted(run: MemoryRun, groups: list[RedundantGroup]) -> LeaveOneOut | None:
    """Return comparisons in which each of ``groups`` can be left out; ``None``: there are none.

    The mind is asked to print the conversation anew, which a session can. What was scored of the
    same prompts is in the cache.
    """
    context_without = getattr(run.mind, "context_without", None)
    try:
        if context_without is None:
            raise MindhooksError("the host cannot print its messages without them")
        context = await context_without([frozenset(group.keys) for group in groups])
        if await whole_prompt(context) != await whole_prompt(run.context):
            raise MindhooksError("the conversation has changed meanwhile")
    except MindhooksError as error:
        log.warning("memories that may hide each other: %s", format_error(error))
        return None
    return LeaveOneOut(run.cached, context, run.noise)
