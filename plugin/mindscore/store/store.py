"""What the flows and the recorder keep, by namespace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Select, Table, delete, select
from sqlalchemy.dialects.sqlite import insert

from mindhooks import FinetuneCandidate, MemoryScore
from mindscore.config import StoreSettings
from mindscore.fingerprint import response_hash
from mindscore.store.database import Database
from mindscore.store.schema import candidates, cells, memories, trained

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """A memory's row: ``weight`` is the exponentially weighted mean of its scores, in nats.

    ``last_scored`` is in seconds since the epoch, ``None`` for one imported and not measured yet.
    """

    key: str
    model: str
    score: float
    weight: float
    last_scored: float | None
    count: int


@dataclass(frozen=True, slots=True)
class TrainedMarks:
    """The responses that a trainer has accepted: timestamp, and hash of the response's ids."""

    marks: frozenset[tuple[int, str]]

    def covers(self, timestamp_ns: int, continuation_ids: Sequence[int]) -> bool:
        """Whether the response is marked; a mark without a hash matches by timestamp alone."""
        return (timestamp_ns, "") in self.marks or (
            timestamp_ns,
            response_hash(continuation_ids),
        ) in self.marks


class Store:
    """The store of one namespace. Every method is one transaction and may raise ``StoreError``."""

    def __init__(self, settings: StoreSettings) -> None:
        self._database = Database(settings.url)
        self._namespace = settings.namespace

    async def last_scored(self, model: str) -> dict[str, float]:
        """When each memory was last scored by ``model``, in seconds since the epoch."""
        query = self._mine(memories, memories.c.key, memories.c.last_scored).where(
            memories.c.model == model, memories.c.last_scored.is_not(None)
        )
        return dict(await self._all(query))

    async def memories(self) -> list[StoredMemory]:
        """Every memory of the namespace, the heaviest first."""
        columns = [memories.c[name] for name in StoredMemory.__slots__]
        order = (memories.c.weight.desc(), memories.c.key, memories.c.model)
        rows = await self._all(self._mine(memories, *columns).order_by(*order))
        return [StoredMemory(*row) for row in rows]

    async def record_score(self, score: MemoryScore, model: str, alpha: float) -> None:
        """Keep an incremental score: the last, the weight, the time and the count."""
        fresh = {"score": score.score, "last_scored": time.time()}
        row = {**self._ours(key=score.key, model=model), **fresh, "weight": score.score, "count": 1}
        weight = alpha * score.score + (1 - alpha) * memories.c.weight
        await self._upsert(
            memories, [row], lambda _: {**fresh, "weight": weight, "count": memories.c.count + 1}
        )

    async def record_row(self, score: MemoryScore, model: str) -> None:
        """Keep a row of the full matrix, signed values included."""
        rows = [
            self._ours(
                key=score.key,
                model=model,
                node_id=response.node_id,
                entry_idx=response.entry_idx,
                divergence=response.divergence,
                signed=response.signed,
                scored_at=time.time(),
            )
            for response in score.divergences
        ]
        await self._upsert(cells, rows, _values(cells))

    async def record_candidate(self, candidate: FinetuneCandidate, model: str) -> None:
        """Keep a candidate; found again, it replaces what was kept."""
        row = self._ours(
            model=model,
            timestamp_ns=candidate.timestamp_ns,
            continuation_hash=response_hash(candidate.continuation_ids),
            divergence=candidate.divergence,
            candidate=msgspec.json.encode(candidate).decode(),
            found_at=time.time(),
        )
        await self._upsert(candidates, [row], _values(candidates))

    async def trained(self) -> TrainedMarks:
        """The marks of everything that a trainer has accepted."""
        rows = await self._all(
            self._mine(trained, trained.c.timestamp_ns, trained.c.continuation_hash)
        )
        return TrainedMarks(frozenset((stamp, hash_) for stamp, hash_ in rows))

    async def trained_timestamps(self) -> list[int]:
        """The timestamps of all marks, ascending, each once."""
        column = trained.c.timestamp_ns
        rows = await self._all(self._mine(trained, column).distinct().order_by(column))
        return [row[0] for row in rows]

    async def mark_trained(
        self, sent: Iterable[tuple[int, Sequence[int]]], job_id: str | None
    ) -> None:
        """Mark responses, each a timestamp and its ids, as accepted by a trainer."""
        await self._mark([(stamp, response_hash(ids)) for stamp, ids in sent], job_id)

    async def import_trained(self, timestamps: Iterable[int]) -> None:
        """Mark whatever responses bear these timestamps."""
        await self._mark([(stamp, "") for stamp in timestamps], None)

    async def import_scores(self, scores: Mapping[str, float], model: str) -> None:
        """Take scores over as last score and weight; the memories count as never measured."""
        rows = [
            self._ours(key=key, model=model, score=score, weight=score, last_scored=None, count=0)
            for key, score in scores.items()
        ]
        await self._upsert(
            memories, rows, lambda new: {"score": new["score"], "weight": new["weight"]}
        )

    async def forget(self, key: str) -> int:
        """Remove a memory's scores and cells, of every model; how many rows there were."""

        def work(connection: Connection) -> int:
            gone = 0
            for table in (memories, cells):
                mine = (table.c.namespace == self._namespace, table.c.key == key)
                gone += connection.execute(delete(table).where(*mine)).rowcount
            return gone

        return await self._database.transact(work)

    async def _mark(self, marks: Sequence[tuple[int, str]], job_id: str | None) -> None:
        rows = [
            self._ours(
                timestamp_ns=stamp, continuation_hash=hash_, job_id=job_id, trained_at=time.time()
            )
            for stamp, hash_ in marks
        ]
        await self._upsert(trained, rows, _values(trained))

    def _ours(self, **values: Any) -> dict[str, Any]:
        return {"namespace": self._namespace, **values}

    def _mine(self, table: Table, *columns: Any) -> Select[Any]:
        return select(*columns).where(table.c.namespace == self._namespace)

    async def _all(self, query: Select[Any]) -> Sequence[Any]:
        return await self._database.transact(lambda connection: connection.execute(query).all())

    async def _upsert(
        self, table: Table, rows: list[dict[str, Any]], changes: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        """Insert ``rows``; where one is there already, set ``changes(the new row)`` instead."""
        if not rows:
            return
        statement = insert(table)
        statement = statement.on_conflict_do_update(
            index_elements=list(table.primary_key), set_=dict(changes(statement.excluded))
        )
        await self._database.transact(lambda connection: connection.execute(statement, rows))


def _values(table: Table) -> Callable[[Any], dict[str, Any]]:
    """All columns that are not part of the primary key, as in the new row."""
    return lambda new: {c.name: new[c.name] for c in table.columns if not c.primary_key}
