"""The background pass: the memories that are due, oldest-scored first, each over its window."""

from __future__ import annotations

import math
import time

from mindhooks import Outcome
from mindscore.flows.budget import Budget
from mindscore.flows.memory_run import Measured, MemoryRun
from mindscore.memories import Memory, just, past_cutoff, response_window, responses
from mindscore.prompts import beginning
from mindscore.selftest import ensure_tested
from mindscore.store import Store


async def score_due(run: MemoryRun) -> None:
    """Score every memory that is due and has been in the conversation for long enough."""
    settings, context = run.settings.memory, run.context
    last = await Store(run.settings.store).last_scored(run.scorer.model)
    due = [m for m in run.memories if _is_due(last.get(m.key), settings.interval_s)]
    late = past_cutoff(context, due, settings.token_cutoff)
    windows, ready = {}, []
    for memory in due:
        await run.pace.step()
        windows[memory] = response_window(context, memory.position, settings.response_window)
    for memory in run.memories:
        await run.pace.step()
        if memory not in windows:
            run.settle([memory], Outcome("not-due"))
        elif memory.key in late:
            run.settle([memory], Outcome("past-cutoff"))
        elif not responses(context, windows[memory]):
            run.settle([memory], Outcome("no-response"))
        else:
            ready.append(memory)
    ready.sort(key=lambda memory: (last.get(memory.key, -math.inf), memory.position))
    budget = Budget(context, windows, run.options.max_tokens, run.noise.repeats)
    chosen = []
    for memory in ready:
        await run.pace.step()
        if budget.takes(memory):
            chosen.append(memory)
    run.settle([memory for memory in ready if memory not in chosen], Outcome("left-out"))
    if chosen:
        await ensure_tested(run.scorer, run.settings.server, beginning(context))

    async def measure(memory: Memory) -> Measured:
        window = windows[memory]
        row = await run.compared.drop(window, just(memory.key), budget.judged(window))
        return row, None

    await run.score_each(chosen, "incremental", measure)


def _is_due(last_scored: float | None, interval_s: float) -> bool:
    # An interval of 0 means always, even where the clock was set back since.
    return last_scored is None or interval_s == 0 or time.time() - last_scored >= interval_s
