"""The sizes of the parts that a prompt runs through a model in."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any

FEWEST_TOKENS = 64
"""Where memory does not suffice for these, it does not suffice for the prompt."""

LOGITS_BYTES = 2**30
"""What the logits of one chunk's rows may take."""

Stopped = Callable[[], bool]
"""Asked between two chunks: the caller no longer wants the answer."""


class StoppedError(Exception):
    """The caller no longer wants the answer."""


class Chunks:
    """Prefill chunks of at most ``tokens`` tokens, and of ``most_rows`` rows with logits.

    ``row_bytes`` are those of one row's logits.
    """

    def __init__(self, tokens: int, row_bytes: int) -> None:
        self._usual = self.tokens = tokens
        self._fitting = max(1, LOGITS_BYTES // row_bytes)

    @property
    def most_rows(self) -> int:
        """The number of rows that may have logits at once."""
        return min(self.tokens, self._fitting)

    def split(
        self, start: int, end: int, rows: Sequence[int], first: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """Yield where each chunk begins and ends, from ``start`` to ``end``.

        ``rows`` are those with logits, ascending. ``first`` are the first chunk's tokens, as many
        as the others' if not given.
        """
        size = first or self.tokens
        while start < end:
            last = min(start + size, end)
            over = bisect_left(rows, start) + self.most_rows
            if over < len(rows):
                last = min(last, rows[over])
            yield start, last
            start, size = last, self.tokens

    def halve(self) -> bool:
        """Use smaller ones from here on; return ``False``, and reset them, if they are small."""
        is_small = self.tokens <= FEWEST_TOKENS
        self.tokens = self._usual if is_small else self.tokens // 2
        return not is_small


def longest_in_chunks(config: Any) -> float:
    """Return how many tokens a prompt may have, that its chunks are as those of the whole.

    LongRoPE turns all positions otherwise where a prompt is longer than those that the model was
    first trained with. Keys of its first chunks would not be turned so.
    """
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    found = [math.inf]
    # Kinds of layers may each have their own.
    for each in (rope, *(it for it in rope.values() if isinstance(it, dict))):
        if each.get("rope_type", each.get("type")) == "longrope":
            first = getattr(config, "original_max_position_embeddings", None)
            found.append(each.get("original_max_position_embeddings") or first or math.inf)
    return min(found)
