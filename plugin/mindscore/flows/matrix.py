"""The full matrix: every memory against every response, from one baseline."""

from __future__ import annotations

from mindhooks import Outcome
from mindscore.divergence import ask_only, divergences
from mindscore.flows.memory_run import MemoryRun, Row
from mindscore.memories import Memory, affected, just, nothing, responses, whole


async def score_matrix(run: MemoryRun) -> None:
    """Score each memory over the whole conversation: at most one call more than memories."""
    context, window = run.context, whole(run.context)
    if not responses(context, window) or not run.memories:
        run.settle(run.memories, Outcome("no-response"))
        return
    full = context.wire_prompt(window, nothing)
    judging = [affected(context, window, just(memory.key)) for memory in run.memories]
    [baseline] = await run.meter.totals([ask_only(full, set[str]().union(*judging))])

    async def measure(memory: Memory) -> Row:
        skip = just(memory.key)
        asked = affected(context, window, skip)
        without = ask_only(context.wire_prompt(window, skip), asked)
        [totals] = await run.meter.totals([without])
        return divergences(responses(context, window, skip), baseline, totals, asked)

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
