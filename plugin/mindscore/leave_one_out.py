"""What one memory did to the responses of a window: two prompts, two scorings."""

from __future__ import annotations

from mindhooks import Context, ResponseDivergence, Scorer, WirePrompt
from mindscore import memories
from mindscore.divergence import Meter, Usage, affected, ask_only, divergences


def prompt_with(context: Context, window: range) -> WirePrompt:
    """The prompt with every memory in it."""
    return context.wire_prompt(window, lambda _: False)


def prompt_without(context: Context, window: range, key: str) -> WirePrompt:
    """The prompt without every node and part that bears ``key``."""
    return context.wire_prompt(window, lambda other: other == key)


def prompt_bare(context: Context, window: range) -> WirePrompt:
    """The prompt without any memory."""
    return context.wire_prompt(window, lambda _: True)


async def compare(
    meter: Meter, context: Context, window: range, with_: WirePrompt, without: WirePrompt
) -> tuple[ResponseDivergence, ...]:
    """Score both prompts on the responses that differ; one divergence per response in ``window``.

    Raises:
        ScorerError: the scorer failed.
    """
    wanted = memories.responses(context, window)
    asked = affected(with_, without) & wanted.keys()
    full, ablated = await meter.totals([ask_only(with_, asked), ask_only(without, asked)])
    return divergences(wanted, full, ablated, asked)


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
    with_, without = prompt_with(context, window), prompt_without(context, window, key)
    found = await compare(Meter(scorer, Usage()), context, window, with_, without)
    return sum(response.divergence for response in found)
