"""The variation of a model's answers: a divergence within it is no effect of a memory."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from mindhooks import ScorerCapabilities, WirePrompt
from mindscore._util.errors import format_error
from mindscore.measure.cached_scorer import CachedScorer
from mindscore.measure.divergence import Totals
from mindscore.measure.prompts import ask_only

_logger = logging.getLogger("mindscore")


class NoiseFloor:
    """Scores a baseline's responses again, each once in a run.

    ``spread`` is a response's largest total less its smallest, in nats, by node id. It is an
    estimate: one repetition shows the size of the noise, not its distribution.
    """

    def __init__(self, scorer: CachedScorer, repeats: int | Literal["auto"]) -> None:
        noisy = ScorerCapabilities.of(scorer.scorer).noisy
        self.repeats = int(noisy) if repeats == "auto" else repeats
        self._scorer = scorer
        self._tried: set[str] = set()
        self._turn = asyncio.Lock()
        self.spread: dict[str, float] = {}

    async def measure(self, prompt: WirePrompt, totals: Totals) -> None:
        """Score the responses of ``prompt`` again; ``totals`` are those of the first time.

        A scorer that fails leaves the noise unknown, with a logged warning.
        """
        if self.repeats == 0:
            return
        async with self._turn:
            new = [id_ for id_ in prompt.node_ids if id_ not in self._tried]
            self._tried.update(new)
            found = [totals]
            try:
                for _ in range(self.repeats if new else 0):
                    found.append(await self._scorer.score_uncached(ask_only(prompt, new)))  # noqa: PERF401
            # A scorer may be a third party's.
            except Exception as error:
                _logger.warning(
                    "the noise of %d responses is not known: %s", len(new), format_error(error)
                )
                return
            for id_ in new:
                values = [each[id_] for each in found]
                self.spread[id_] = max(values) - min(values)
