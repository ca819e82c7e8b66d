"""The control for the place, at the end of a matrix: unrelated texts in the memories' places."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mindscore._util.errors import format_error
from mindscore.flows.confirming import Check
from mindscore.measure.memories import memory_texts, skip_only
from mindscore.measure.placebo import (
    UNRELATED,
    PlaceboControl,
    around,
    scaffolding,
    spread_evenly,
    with_filler,
)
from mindscore.measure.screening.spans import MemorySpans

if TYPE_CHECKING:
    from mindscore.flows.memory import MemoryRun

log = logging.getLogger("mindscore")


async def control_places(
    run: MemoryRun,
    window: range,
    keys: set[str],
    spans: MemorySpans,
    require_unchanged: Check,
) -> None:
    """Measure what an unrelated text does in the places of the memories ``keys``.

    ``spans`` are those of all memories. One prompt for each place, of at most ``MOST_PLACES``; the
    prompt without the memory is known from its row, or asked for once more where that was kept. A
    memory with images has no place for a text. The control goes to the registry's stash. A failure,
    and the end of ``max_tokens``, leave it with the places that were measured.
    """
    try:
        texts = [await run.retry.wrap(run.scorer.tokenize)(text) for text in UNRELATED]
        kept = [await _kept(run, spans, at) for at in range(len(spans.prompts))]
    # A scorer may be a third party's, and unable to.
    except Exception as error:
        log.warning("the control of the places: %s", format_error(error))
        return
    context = run.context
    nodes = (*context.system, *context.identity, *context.conversation)
    shown = {key for node in nodes if node.images for key in node.memory_keys()}
    controlled = [it.key for it in run.memories if it.key in keys - shown]
    effects: dict[str, dict[str, float]] = {}
    for number, key in enumerate(spread_evenly(controlled)):
        # Each place has a text that begins otherwise.
        turn = number % len(texts)
        filler = [id_ for text in (*texts[turn:], *texts[:turn]) for id_ in text]
        filled = [
            with_filler(prompt, its, filler, edges)
            for prompt, its, (edges, _) in zip(spans.prompts, spans.spans[key], kept, strict=True)
            if its
        ]
        if not filled:
            # Nothing is behind it that could tell.
            continue
        length = sum(len(it.tokens) for it in filled)
        limit = run.options.max_tokens
        if limit and run.usage.prompt_tokens + 2 * length > limit:
            log.info("no tokens are left to control more places of memories")
            break
        run.activity.update(f"control of the place: {key}")
        try:
            row = await run.compared.filled(window, skip_only(key), filled)
            await require_unchanged()
        # What was measured is not lost with it.
        except Exception as error:
            log.warning("the control of the place of %s: %s", key, format_error(error))
            break
        effects[key] = row
    if any(effects.values()):
        is_framed = not all(is_told for _, is_told in kept)
        run.registry.stash[PlaceboControl] = PlaceboControl.of(effects, is_framed=is_framed)


async def _kept(run: MemoryRun, spans: MemorySpans, at: int) -> tuple[tuple[int, int], bool]:
    """Return how many ids the template prints before and behind each memory, and if that is known.

    It is what all begin and end with, or what a single one has beside its text.
    """
    tokens, bodies = spans.prompts[at].tokens, dict[tuple[int, ...], str]()
    for key, its in spans.spans.items():
        # A memory may have a second span, of a header that counts them.
        start, end = max(its[at], key=lambda it: it[1] - it[0], default=(0, 0))
        if start < end:
            bodies.setdefault(tokens[start:end], key)
    if len(bodies) != 1:
        return scaffolding(list(bodies)), True
    [(body, key)] = bodies.items()
    text = memory_texts(run.context)[key]
    found = around(body, await run.retry.wrap(run.scorer.tokenize)(text))
    return found or (0, 0), found is not None
