"""By how much a model's answers vary: what lies within that is no effect of a memory."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from mindhooks import WirePrompt
from mindscore._util.errors import format_error
from mindscore.measure.cached_scorer import CachedScorer
from mindscore.measure.divergence import Totals
from mindscore.measure.prompts import ask_only

_logger = logging.getLogger("mindscore")


class NoiseFloor:
    """Scores a baseline's responses again.

    ``spread`` is each one's largest total less its smallest, in nats, by node id; each response is
    measured once in a run. It is no more than an estimate: one repetition shows
    the size of the noise, not its distribution.
    """

    def __init__(self, meter: CachedScorer, repeats: int | Literal["auto"]) -> None:
        noisy = getattr(meter.scorer, "noisy", False)
        self.repeats = int(noisy) if repeats == "auto" else repeats
        self._meter = meter
        self._tried: set[str] = set()
        self._turn = asyncio.Lock()
        self.spread: dict[str, float] = {}

    async def measure(self, prompt: WirePrompt, totals: Totals) -> None:
        """Score the responses of ``prompt`` again, of which ``totals`` came the first time.

        That it cannot be measured is no reason to fail: the noise stays unknown.
        """
        if self.repeats == 0:
            return
        async with self._turn:
            new = [id_ for id_ in prompt.node_ids if id_ not in self._tried]
            self._tried.update(new)
            found = [totals]
            try:
                for _ in range(self.repeats if new else 0):
                    found.append(await self._meter.measure(ask_only(prompt, new)))  # noqa: PERF401
            # A scorer may be anybody's.
            except Exception as error:
                _logger.warning(
                    "the noise of %d responses is not known: %s", len(new), format_error(error)
                )
                return
            for id_ in new:
                values = [each[id_] for each in found]
                self.spread[id_] = max(values) - min(values)
