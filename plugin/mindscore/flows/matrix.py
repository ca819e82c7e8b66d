"""The full matrix: every memory against every response, from one baseline."""

from __future__ import annotations

from mindhooks import MemoryScore, Outcome
from mindscore.fingerprint import RowFingerprints
from mindscore.flows.memory_run import Measured, MemoryRun, Row
from mindscore.memories import Memory, affected, just, responses, whole
from mindscore.prompts import beginning
from mindscore.selftest import ensure_tested
from mindscore.store import Store


async def score_matrix(run: MemoryRun) -> None:
    """Score each memory over the whole conversation: at most one call more than memories.

    With ``hold`` as many again. Last memories first: of what a server keeps, the longest beginning
    is used as long as it is there.
    """
    context, window = run.context, whole(run.context)
    if not responses(context, window) or not run.memories:
        run.settle(run.memories, Outcome("no-response"))
        return
    # The same model with an adapter has other weights under the same name.
    adapter = getattr(run.scorer, "adapter", None)
    fingerprints = RowFingerprints(context, "" if adapter is None else str(adapter))
    kept = await _kept_rows(run, fingerprints)
    judging: set[str] = set()
    if len(kept) < len(run.memories):
        await ensure_tested(run.scorer, run.settings.server, beginning(context))
        for memory in run.memories:
            await run.pace.step()
            if memory.key not in kept:
                judging |= affected(context, window, just(memory.key))
        await run.compared.baseline(window, judging)

    async def measure(memory: Memory) -> Measured:
        if memory.key in kept:
            row = kept[memory.key]
            return row.divergences, row.hold if run.options.hold else None
        found = await run.compared.drop(window, just(memory.key), judging)
        if not run.options.hold:
            return found, None
        try:
            return found, await run.compared.hold(window, memory.key, judging)
        # What was measured of the memory is not lost with it.
        except Exception as error:
            return found, error

    await run.score_each(
        run.memories[::-1],
        "full",
        measure,
        take=lambda memory, row: _show_row(run, memory, row),
        fingerprint=fingerprints.of,
    )


async def _kept_rows(run: MemoryRun, fingerprints: RowFingerprints) -> dict[str, MemoryScore]:
    """With ``resume``, the rows that the store has of this very conversation, by memory."""
    if not run.options.resume:
        return {}
    rows = await Store(run.settings.store).rows(run.scorer.model)
    kept = {}
    for memory in run.memories:
        await run.pace.step()
        row = rows.get(memory.key)
        if row is None or (run.options.hold and row.hold is None):
            continue
        if row.fingerprint == fingerprints.of(memory.key):
            kept[memory.key] = row
    return kept


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
