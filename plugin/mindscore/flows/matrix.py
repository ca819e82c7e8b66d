"""The full matrix: every memory against every response, from one baseline."""

from __future__ import annotations

from mindhooks import Outcome
from mindscore.divergence import affected, ask_only, divergences
from mindscore.flows.memory_run import MemoryRun, Row
from mindscore.leave_one_out import prompt_with, prompt_without
from mindscore.memories import Memory, responses, whole


async def score_matrix(run: MemoryRun) -> None:
    """Score each memory over the whole conversation: at most one call more than memories."""
    context, window = run.context, whole(run.context)
    wanted = responses(context, window)
    if not wanted or not run.memories:
        run.settle(run.memories, Outcome("no-response"))
        return
    full = prompt_with(context, window)
    first = min(memory.position for memory in run.memories)
    after = {node_id for node_id, index in wanted.items() if index >= first}
    [baseline] = await run.meter.totals([ask_only(full, after)])

    async def measure(memory: Memory) -> Row:
        without = prompt_without(context, window, memory.key)
        asked = affected(full, without) & wanted.keys()
        [totals] = await run.meter.totals([ask_only(without, asked)])
        return divergences(wanted, baseline, totals, asked)

    await run.score_each(
        run.memories, "full", measure, lambda memory, row: _show_row(run, memory, row)
    )


def _show_row(run: MemoryRun, memory: Memory, row: Row) -> None:
    """Set the row's values above ``memory.min_divergence`` on the screen, remove the others."""
    cells = run.mind.state.response_scores
    for response in row:
        column = cells.setdefault(response.node_id, {})
        column.pop(memory.key, None)
        if response.divergence > run.settings.memory.min_divergence:
            column[memory.key] = response.divergence
        if not column:
            del cells[response.node_id]
    run.mind.changed()
