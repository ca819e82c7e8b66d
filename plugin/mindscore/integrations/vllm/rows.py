"""The rows of a prompt that are asked of vLLM, and their values in its answer.

A row predicts the token after it: that of position ``p`` is scored by row ``p - 1``.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mindscore.integrations.vllm.engine import LIMIT
from mindscore.integrations.vllm.protocol import ROUNDING, RowsError, Span
from mindscore.integrations.vllm.versions import logger

Ask = Callable[[dict[str, Any]], Awaitable[Any]]
"""Asks vLLM with these arguments of ``SamplingParams``; returns its ``RequestOutput``."""


class Rows:
    """The scored tokens of a prompt."""

    def __init__(self, prompt: Sequence[int], ranges: Sequence[Span]) -> None:
        self.prompt = prompt
        self.ranges = ranges
        self.first = min(start for start, _ in ranges)
        self.positions = sorted({at for start, end in ranges for at in range(start, end)})

    @property
    def prefix_limit(self) -> int:
        """The number of tokens that may come from the cache: those before the first scored row."""
        return self.first - 1

    def arguments(self, *, by_id: bool, reuse: bool) -> dict[str, Any]:
        """Return the arguments of ``SamplingParams``.

        ``by_id`` asks for the scored tokens of the rows from the first on, which the V2 runner
        knows. Otherwise all rows that are computed are asked for. ``reuse`` lets the prompt's
        prefix come from the cache.
        """
        common: dict[str, Any] = {
            "max_tokens": 1,
            "temperature": 0.0,
            "detokenize": False,
            "skip_reading_prefix_cache": True,
        }
        if reuse:
            common["extra_args"] = {LIMIT: self.prefix_limit}
        if not by_id:
            return {**common, "prompt_logprobs": 0, "flat_logprobs": True}
        wanted = set(self.positions)
        ids = [
            [self.prompt[at] if at in wanted else -1] for at in range(self.first, len(self.prompt))
        ]
        return {**common, "prompt_logprob_start": self.first - 1, "prompt_logprob_token_ids": ids}

    def read_scores(self, scores: Any) -> dict[int, float] | None:
        """Return the value of each position; ``scores`` has a row and a column for each id asked.

        ``None`` where vLLM scored no rows, or not as many as asked.
        """
        if scores is None or tuple(scores.shape) != (len(self.prompt) - self.first, 1):
            return None
        return {at: float(scores[at - self.first, 0]) for at in self.positions}

    def read_listed(
        self, listed: Sequence[Mapping[int, Any] | None] | None
    ) -> dict[int, float] | None:
        """Return the value of each position from ``prompt_logprobs``, whose ends are the same.

        The V1 runner lists every position, those from the cache unwritten, and the V2 runner only
        those that it computed. ``None`` where one is missing or is not of the prompt's token.
        """
        if listed is None:
            return None
        missing = len(self.prompt) - len(listed)
        found: dict[int, float] = {}
        for at in self.positions:
            entry = listed[at - missing] if at > missing >= 0 else None
            value = entry.get(self.prompt[at]) if entry else None
            if value is None:
                return None
            found[at] = float(value.logprob)
        return found

    def by_range(self, values: Mapping[int, float]) -> list[list[float]]:
        """Return the values of each range.

        Raises:
            RowsError: one is not finite or above 0.
        """
        for at, value in values.items():
            if not math.isfinite(value) or value > ROUNDING:
                raise RowsError(
                    f"the model gives the token at position {at} a log-probability of {value}, "
                    "which none can be: the model or its number format is broken"
                )
        return [[values[at] for at in range(start, end)] for start, end in self.ranges]


async def score_rows(rows: Rows, ask: Ask, *, by_id: bool) -> tuple[dict[int, float], int]:
    """Return the value of each scored position, and how many tokens came from the cache.

    Where the cache reached past the first scored row, or a row is missing, the prompt is asked for
    a second time, in full.

    Raises:
        RowsError: a row is missing of that, too.
    """
    for reuse in (True, False) if rows.prefix_limit > 0 else (False,):
        output = await ask(rows.arguments(by_id=by_id, reuse=reuse))
        cached = output.num_cached_tokens or 0
        values = None
        # Rows from the cache were not computed, whatever the answer says of them.
        if cached <= rows.prefix_limit:
            values = (
                rows.read_scores(output.prompt_token_id_logprobs)
                if by_id
                else rows.read_listed(output.prompt_logprobs)
            )
        if values is not None:
            return values, cached
        logger.warning("/v1/score: rows of a prompt are missing, %d of it cached", cached)
    raise RowsError("vLLM returned no log-probability for some of the scored tokens")
