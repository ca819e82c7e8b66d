"""Samples that begin alike, as one sequence: the same losses for a fraction of the tokens.

What a causal model says of a token is a function of the tokens before it. So where a sample,
context and continuation, is how another begins, its losses are to be had in passing: the responses
of one conversation are usually one sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from mindscore.prompts import common_prefix


class Sample(Struct, frozen=True):
    """What to say, ``continuation_ids``, after what: ``context_ids``. Neither is empty."""

    context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """The whole sequence."""
        return self.context_ids + self.continuation_ids


@dataclass(frozen=True, slots=True)
class Packed:
    """One sequence and where it is to be learnt from.

    ``rows`` are the indices before the tokens to be learnt, in order: the logits of row i are those
    of token i + 1. A token that several samples have to say is there as many times.
    """

    ids: tuple[int, ...]
    rows: tuple[int, ...]


def pack(samples: Sequence[Sample]) -> list[Packed]:
    """The fewest sequences that hold ``samples`` from their beginning."""
    sequences: list[tuple[tuple[int, ...], list[int]]] = []
    # In order, what begins with a sample follows it at once.
    for sample in sorted(samples, key=lambda it: it.ids, reverse=True):
        ids = sample.ids
        if not sequences or common_prefix(sequences[-1][0], ids) < len(ids):
            sequences.append((ids, []))
        sequences[-1][1].extend(range(len(sample.context_ids) - 1, len(ids) - 1))
    return [Packed(ids, tuple(sorted(rows))) for ids, rows in sequences]
