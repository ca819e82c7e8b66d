"""The control for the place, at the end of a matrix: unrelated texts in the memories' places."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mindscore._util.errors import format_error
from mindscore.flows.confirming import Check
from mindscore.measure.memories import responses, skip_none, skip_only
from mindscore.measure.placebo import (
    UNRELATED,
    PlaceboControl,
    scaffolding,
    spread_evenly,
    with_filler,
)
from mindscore.measure.prompts import prompts_for
from mindscore.measure.screening.spans import find_spans

if TYPE_CHECKING:
    from mindscore.flows.memory import MemoryRun

log = logging.getLogger("mindscore")


async def control_places(
    run: MemoryRun, window: range, keys: set[str], require_unchanged: Check
) -> None:
    """Measure what an unrelated text does in the places of the memories ``keys``.

    One prompt for each place, of at most ``MOST_PLACES``; the prompt without the memory is known
    from its row, or asked for once more where that was kept. The control goes to the registry's
    stash. A failure, and the end of ``max_tokens``, leave it with the places that were measured.
    """
    memories = [it for it in run.memories if it.key in keys]
    prompts = await prompts_for(run.context, window, skip_none, responses(run.context, window))
    spans = (await find_spans(run.context, window, memories, prompts, reuses=False)).spans
    try:
        texts = [await run.retry.wrap(run.scorer.tokenize)(text) for text in UNRELATED]
    # A scorer may be a third party's, and unable to.
    except Exception as error:
        log.warning("the control of the places: %s", format_error(error))
        return
    kept = [
        scaffolding([prompt.tokens[start:end] for its in spans.values() for start, end in its[at]])
        for at, prompt in enumerate(prompts)
    ]
    effects: dict[str, dict[str, float]] = {}
    for number, key in enumerate(spread_evenly([it.key for it in memories])):
        # Each place has a text that begins otherwise.
        turn = number % len(texts)
        filler = [id_ for text in (*texts[turn:], *texts[:turn]) for id_ in text]
        filled = [
            with_filler(prompt, its, filler, edges)
            for prompt, its, edges in zip(prompts, spans[key], kept, strict=True)
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
    if effects:
        run.registry.stash[PlaceboControl] = PlaceboControl.of(effects)
