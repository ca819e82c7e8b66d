"""What a model is not to unlearn: what it said, before, of the tokens that are not taught."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mindscore.lora.packing import Packed

LIKELIEST = 64
"""Tokens whose probability is kept for each row; the others' is kept as a sum. All of them would
take gigabytes."""

ROWS = 256
"""Rows that are compared at once, drawn anew each time."""


class Kept:
    """One sequence's rows that are not learnt from, and the distributions there.

    ``logits`` gives those of a sequence's rows, as the model is before it is trained.
    """

    def __init__(
        self, sequence: Packed, logits: Callable[[Sequence[int], Sequence[int]], Any]
    ) -> None:
        learnt = set(sequence.rows)
        self._rows = torch.tensor([it for it in range(len(sequence.ids) - 1) if it not in learnt])
        tokens, logprobs = [], []
        with torch.no_grad():
            for rows in self._rows.split(2 * ROWS):
                if len(rows):
                    every = logits(sequence.ids, rows.tolist()).log_softmax(1)
                    likeliest = every.topk(min(LIKELIEST, every.shape[1] - 1))
                    tokens.append(likeliest.indices)
                    logprobs.append(likeliest.values)
        self._tokens = torch.cat(tokens) if tokens else None
        self._logprobs = torch.cat(logprobs) if logprobs else None

    def draw(self) -> Any:
        """Indices of some of the rows."""
        return torch.randperm(len(self._rows))[:ROWS].sort().values

    def rows(self, drawn: Any) -> list[int]:
        """The sequence's rows behind those indices."""
        rows: list[int] = self._rows[drawn].tolist()
        return rows

    def divergence(self, drawn: Any, logits: Any) -> Any:
        """The mean KL divergence of ``logits`` from what is kept, in nats a row."""
        if self._tokens is None or self._logprobs is None:
            return 0.0
        before = _with_rest(self._logprobs[drawn])
        after = _with_rest(logits.log_softmax(1).gather(1, self._tokens[drawn]))
        return (before.exp() * (before - after)).sum(1).mean()


def _with_rest(logprobs: Any) -> Any:
    """A column more: the log-probability of all other tokens together."""
    rest = (1 - logprobs.exp().sum(1, keepdim=True)).clamp(min=1e-6)
    return torch.cat([logprobs, rest.log()], dim=1)
