"""What one memory did to the responses of a window: two prompts, two scorings."""

from __future__ import annotations

from mindhooks import Context, ResponseDivergence, Scorer
from mindscore import memories
from mindscore.divergence import Meter, Usage, ask_only, divergences


async def compare(
    meter: Meter, context: Context, window: range, skip: memories.Skip
) -> tuple[ResponseDivergence, ...]:
    """What all that ``skip`` names did to each response in ``window``.

    Raises:
        ScorerError: the scorer failed.
    """
    asked = memories.affected(context, window, skip)
    with_ = ask_only(context.wire_prompt(window, memories.nothing), asked)
    without = ask_only(context.wire_prompt(window, skip), asked)
    full, ablated = await meter.totals([with_, without])
    return divergences(memories.responses(context, window, skip), full, ablated, asked)


async def score_memory(
    context: Context, key: str, scorer: Scorer, *, response_window: int = 50
) -> float:
    """The sum of what the memory ``key`` did to the responses after it, in nats.

    The responses are the next ``response_window`` ones from the memory's first position. 0.0 when
    the memory, or a response after it, is not there.

    Raises:
        ScorerError: the scorer failed.
    """
    position = next((m.position for m in memories.find_memories(context) if m.key == key), None)
    if position is None:
        return 0.0
    window = memories.response_window(context, position, response_window)
    found = await compare(Meter(scorer, Usage()), context, window, memories.just(key))
    return sum(response.divergence for response in found)
