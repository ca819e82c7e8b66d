"""A scorer: every token costs the same, and more the more tokens stand before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mindhooks import Generated, RangeScore, ScorerError, WirePrompt


class LengthScorer:
    """``-log(1 + i)`` for the token at index i, times ``[server.options] scale``."""

    model = "acme-length"

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._scale = float(table.get("options", {}).get("scale", 1.0))

    async def score(self, prompts: Sequence[WirePrompt]) -> list[list[RangeScore]]:
        return [[self._range(start, end) for start, end in prompt.ranges] for prompt in prompts]

    def _range(self, start: int, end: int) -> RangeScore:
        return RangeScore(-self._scale * sum(math.log1p(i) for i in range(start, end)))

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        raise ScorerError("the acme-length scorer cannot generate")

    async def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    async def aclose(self) -> None:
        return None
