"""The full matrix: every memory against every response, from one baseline."""

from __future__ import annotations

from mindhooks import Outcome
from mindscore.flows.memory_run import Measured, MemoryRun, Row
from mindscore.memories import Memory, affected, just, responses, whole
from mindscore.prompts import beginning
from mindscore.selftest import ensure_tested


async def score_matrix(run: MemoryRun) -> None:
    """Score each memory over the whole conversation: at most one call more than memories.

    With ``hold`` as many again. Last memories first: of what a server keeps, the longest beginning
    is used as long as it is there.
    """
    context, window = run.context, whole(run.context)
    if not responses(context, window) or not run.memories:
        run.settle(run.memories, Outcome("no-response"))
        return
    await ensure_tested(run.scorer, run.settings.server, beginning(context))
    judging = set[str]().union(
        *(affected(context, window, just(memory.key)) for memory in run.memories)
    )
    await run.compared.baseline(window, judging)

    async def measure(memory: Memory) -> Measured:
        row = await run.compared.drop(window, just(memory.key), judging)
        if not run.options.hold:
            return row, None
        try:
            return row, await run.compared.hold(window, memory.key, judging)
        # What was measured of the memory is not lost with it.
        except Exception as error:
            return row, error

    await run.score_each(
        run.memories[::-1], "full", measure, lambda memory, row: _show_row(run, memory, row)
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
