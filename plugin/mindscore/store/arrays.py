"""Evidence as numpy arrays, for arithmetic over a whole archive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mindscore.store.evidence import KINDS, Batch

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class EvidenceArrays:
    """Columns of evidence, each of shape ``(rows,)``.

    A text column is in ``codes``, as int32 indexes into its distinct values, ``names``. A number is
    in ``values``, as float64; NaN: not measured, or not known.
    """

    names: dict[str, list[str]]
    codes: dict[str, np.ndarray[Any, np.dtype[np.int32]]]
    values: dict[str, np.ndarray[Any, np.dtype[np.float64]]]

    def __len__(self) -> int:
        """Return the number of rows."""
        columns: list[np.ndarray[Any, Any]] = [*self.codes.values(), *self.values.values()]
        return len(columns[0]) if columns else 0


async def as_arrays(batches: AsyncIterator[Batch]) -> EvidenceArrays:
    """Return all batches of ``Store.evidence`` as arrays.

    They take 4 bytes for each text and 8 for each number, and the distinct texts.
    """
    import numpy as np

    ids: dict[str, dict[str, int]] = {}
    codes: dict[str, list[Any]] = {}
    values: dict[str, list[Any]] = {}

    def coded(name: str, texts: Sequence[str]) -> Any:
        known = ids.setdefault(name, {})
        # In order of appearance; the distinct ones of a batch are few.
        for text in dict.fromkeys(texts):
            known.setdefault(text, len(known))
        return np.fromiter(map(known.__getitem__, texts), np.int32, len(texts))

    async for batch in batches:
        for name in batch:
            if name in batch.groups:
                each = coded(name, batch.groups[name])
                codes.setdefault(name, []).append(np.repeat(each, batch.counts))
            elif name in TEXTS:
                codes.setdefault(name, []).append(coded(name, batch.rows[name]))
            else:
                values.setdefault(name, []).append(np.array(batch.rows[name], np.float64))
    return EvidenceArrays(
        {name: list(known) for name, known in ids.items()},
        {name: np.concatenate(parts) for name, parts in codes.items()},
        {name: np.concatenate(parts) for name, parts in values.items()},
    )


TEXTS = frozenset({"conversation", "model", "key", "text_hash", "mode", "node_id"})
"""The columns that are texts."""

NUMBERS = tuple(name for name in KINDS if name not in TEXTS)
"""The columns that are numbers."""
