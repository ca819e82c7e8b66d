"""The evidence of a namespace: what each memory did to each response, as rows or as columns."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import get_args

from sqlalchemy import func, select

from mindscore.store.namespace import NamespaceTables
from mindscore.store.pages import COLUMNS, GROUPS, KINDS, Batch, Columns, Evidence, Mode, Pages
from mindscore.store.schema import cells, receipts
from mindscore.store.transactions import replacing, scored_later, upsert

__all__ = [
    "COLUMNS",
    "KINDS",
    "Batch",
    "Columns",
    "Evidence",
    "EvidenceKind",
    "EvidenceState",
    "EvidenceTables",
    "Mode",
    "columns_of",
    "rows_of",
]

MODES: Sequence[Mode] = get_args(Mode)

BATCH_ROWS = 50_000
"""Rows of one batch, which is read or written in one transaction."""


@dataclass(frozen=True, slots=True)
class EvidenceKind:
    """The number of cells that one model has measured in one mode."""

    model: str
    mode: Mode
    cells: int


def rows_of(columns: Columns) -> Iterator[Evidence]:
    """Yield the rows of a batch that has all columns."""
    return itertools.starmap(Evidence, zip(*(columns[name] for name in COLUMNS), strict=True))


def columns_of(rows: Iterable[Evidence]) -> Columns:
    """Return rows as a batch of all columns."""
    values = list(zip(*map(astuple, rows), strict=True)) or [()] * len(COLUMNS)
    return {name: list(its) for name, its in zip(COLUMNS, values, strict=True)}


@dataclass(frozen=True, slots=True)
class EvidenceState:
    """A number of cells, and when the newest was scored: seconds since the epoch, ``None``: none.

    While it is the same, so is the evidence: a cell that is measured anew is a newer one.
    ``verified_at`` is when advice on it was verified last, ``None``: never.
    """

    cells: int
    newest: float | None
    verified_at: float | None = None


class EvidenceTables(NamespaceTables):
    """The evidence of one namespace: the part of ``Store`` that is about cells of both modes."""

    async def evidence_kinds(self) -> list[EvidenceKind]:
        """Return how many cells each model has measured in each mode, the most first."""
        # By the model alone, which is the order of an index: by both, all would be sorted.
        counts = [func.count().filter(cells.c.mode == mode) for mode in MODES]
        query = self._select(cells, cells.c.model, *counts).group_by(cells.c.model)
        found = [
            EvidenceKind(model, mode, count)
            for model, *its in await self._all(query)
            for mode, count in zip(MODES, its, strict=True)
            if count
        ]
        return sorted(found, key=lambda it: (-it.cells, it.model, it.mode))

    async def evidence_state(self) -> EvidenceState:
        """Return what changes whenever the evidence does, or the receipt of advice on it."""
        # Apart, each is found in an index alone.
        count = self._select(cells, func.count()).scalar_subquery()
        newest = self._select(cells, func.max(cells.c.scored_at)).scalar_subquery()
        verified = self._select(receipts, func.max(receipts.c.verified_at)).scalar_subquery()
        [row] = await self._all(select(count, newest, verified))
        return EvidenceState(*row)

    async def evidence(
        self,
        model: str | None = None,
        *,
        since: float | None = None,
        conversation: str | None = None,
        keys: Sequence[str] | None = None,
        mode: Mode | Collection[Mode] | None = None,
        columns: Sequence[str] = COLUMNS,
        batch_rows: int = BATCH_ROWS,
    ) -> AsyncIterator[Batch]:
        """Yield the evidence in batches, ordered by model, conversation, key, text and response.

        Only that of ``model``, scored at ``since`` or later (seconds since the epoch), in
        ``conversation``, of the memories ``keys`` and of one ``mode``, or of several, where they
        are given. A batch has at most ``batch_rows`` rows, or those of one memory in one
        conversation; it is a transaction of its own, so that others may write between two. Damaged
        rows are left out; the log says how many.

        Raises:
            StoreError: the store cannot be read.
        """
        modes = (mode,) if isinstance(mode, str) else mode
        fixed = {"model": model, "conversation": conversation}
        where = [self._in_namespace(cells)]
        where += [cells.c[name] == it for name, it in fixed.items() if it is not None]
        if since is not None:
            where.append(cells.c.scored_at >= since)
        if keys is not None:
            where.append(cells.c.key.in_(keys))
        if modes is not None:
            where.append(cells.c.mode.in_(modes))
        # Without those that are fixed, so that the index leads to where the last batch ended.
        groups = [name for name in GROUPS if fixed.get(name) is None]
        pages = Pages(where, groups, columns, batch_rows)
        while (batch := await self._database.read(pages.next)) is not None:
            yield batch

    async def add_evidence(self, rows: Iterable[Evidence]) -> int:
        """Keep evidence that was measured elsewhere; return how many rows were given.

        Of two rows about the same memory, text, response, model and mode the one that was scored
        later is kept, so that adding the same rows twice changes nothing.

        Raises:
            StoreError: the store cannot be written; some batches of rows may be kept.
        """
        count, its = 0, iter(rows)
        while batch := list(itertools.islice(its, BATCH_ROWS)):
            count += await self.add_columns(columns_of(batch))
        return count

    async def add_columns(self, columns: Columns) -> int:
        """Keep one batch of evidence, with all columns, as ``add_evidence`` does."""
        names = ("namespace", *COLUMNS)
        values = zip(*(columns[name] for name in COLUMNS), strict=True)
        rows = [dict(zip(names, (self._namespace, *row), strict=True)) for row in values]

        await self._database.write(
            lambda connection: upsert(
                connection, cells, rows, replacing(cells), where=scored_later(cells)
            )
        )
        return len(rows)
