"""Scores, the matrix, candidates and trained marks of a namespace."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, delete, exists, select

from mindhooks import FinetuneCandidate, MemoryScore
from mindscore._util.errors import UsageError
from mindscore._util.files import write_files
from mindscore._util.text import harmless_json
from mindscore.measure.prompts import response_hash
from mindscore.store.database import NamespaceTables, replacing, upsert
from mindscore.store.schema import (
    candidates,
    cells,
    memories,
    reviews,
    rows,
    sends,
    trained,
    weights,
)

Timestamp = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Exchange = dict[str, float] | list[Timestamp]


def read_exchange(file: Path) -> dict[str, float] | list[int]:
    """Read memory scores, ``{key: score}``, or trained timestamps in nanoseconds.

    Raises:
        UsageError: the file cannot be read or is neither, or two scores have the same key.
    """
    try:
        # Reading a pipe would wait for somebody to write.
        if file.exists() and not file.is_file():
            raise UsageError(f"{file}: cannot be read: it is no regular file")
        raw = file.read_bytes()
        contents: Exchange = msgspec.json.decode(raw, type=Exchange)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file}: expected JSON, {{key: score}} or [timestamp in ns, …]: {error}"
        ) from None
    if isinstance(contents, dict):
        _require_unique(file, raw, contents)
    return contents


def write_exchange(file: Path, contents: dict[str, float] | list[int]) -> None:
    """Write the file whole or not at all, for its owner alone.

    Raises:
        UsageError: it cannot be written.
    """
    if file.exists() and not file.is_file():
        raise UsageError(f"{file}: cannot be written: it is no regular file")
    try:
        write_files({file: harmless_json(msgspec.json.encode(contents)) + b"\n"})
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror or error}") from None


def _require_unique(file: Path, raw: bytes, contents: dict[str, float]) -> None:
    pairs: list[tuple[str, float]] = json.loads(raw, object_pairs_hook=list, parse_int=float)
    for key, score in pairs:
        if contents[key] != score:
            raise UsageError(f"{file}: there are two scores of {key!r}, {score} and another")


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """A memory's last score, and the exponentially weighted mean of its scores, in nats.

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
    """The sinks that have accepted each response, by its timestamp and the hash of its ids."""

    marks: Mapping[tuple[int, str], frozenset[str]]

    def covers(
        self, timestamp_ns: int, continuation_ids: Sequence[int], sink: str | None = None
    ) -> bool:
        """Say whether ``sink`` has accepted the response; ``None``: any sink.

        A mark without a hash matches by timestamp alone, and counts for every sink.
        """
        found = self.sinks(timestamp_ns, response_hash(continuation_ids))
        return bool(found) if sink is None else sink in found or "" in found

    def sinks(self, timestamp_ns: int, continuation_hash: str) -> frozenset[str]:
        """Return the sinks that have accepted the response; ``""``: it was imported as trained."""
        nobody: frozenset[str] = frozenset()
        imported = self.marks.get((timestamp_ns, ""), nobody)
        return imported | self.marks.get((timestamp_ns, continuation_hash), nobody)


class Store(NamespaceTables):
    """The scores of one namespace. Every method is one transaction and may raise ``StoreError``.

    A missing file reads as an empty store; the first write makes it. Cells, rows, weights and
    candidates older than ``retention_days`` are removed when one of their kind is written.
    """

    async def last_scored(self, model: str) -> dict[str, float]:
        """Return when ``model`` last scored each memory, in seconds since the epoch."""
        query = self._mine(memories, memories.c.key, memories.c.last_scored).where(
            memories.c.model == model, memories.c.last_scored.is_not(None)
        )
        return dict(await self._all(query))

    async def memories(self) -> list[StoredMemory]:
        """List every memory of the namespace, the heaviest first."""
        columns = [memories.c[name] for name in StoredMemory.__slots__]
        order = (memories.c.weight.desc(), memories.c.key, memories.c.model)
        found = await self._all(self._mine(memories, *columns).order_by(*order))
        return [StoredMemory(*row) for row in found]

    async def record_score(self, score: MemoryScore, model: str, alpha: float) -> None:
        """Keep an incremental score, and update the memory's weight, time and count."""
        now = time.time()
        fresh = {"score": score.score, "last_scored": now}
        row = {**self._ours(key=score.key, model=model), **fresh, "weight": score.score, "count": 1}
        weight = alpha * score.score + (1 - alpha) * memories.c.weight

        def changes(_: Any) -> dict[str, Any]:
            return {**fresh, "weight": weight, "count": memories.c.count + 1}

        same = (memories.c[name] == row[name] for name in ("namespace", "key", "model"))
        led_to = select(memories.c.weight).where(*same)

        def work(connection: Connection) -> None:
            self._prune(connection, weights.c.scored_at)
            upsert(connection, memories, [row], changes)
            point = {
                **self._ours(key=score.key, model=model, scored_at=now, score=score.score),
                "weight": connection.execute(led_to).scalar_one(),
            }
            upsert(connection, weights, [point], replacing(weights))

        await self._database.write(work)

    async def record_row(self, score: MemoryScore, model: str) -> None:
        """Keep a row of the full matrix, signed values included.

        A row with a fingerprint is kept whole, too, except the values of single tokens.
        """
        now = time.time()

        def work(connection: Connection) -> None:
            self._prune(connection, cells.c.scored_at, rows.c.scored_at)
            found = [
                self._ours(
                    key=score.key,
                    model=model,
                    node_id=response.node_id,
                    entry_idx=response.entry_idx,
                    divergence=response.divergence,
                    signed=response.signed,
                    noise=response.noise,
                    scored_at=now,
                )
                for response in score.divergences
            ]
            upsert(connection, cells, found, replacing(cells))
            if score.fingerprint is not None:
                whole = self._ours(
                    key=score.key,
                    model=model,
                    fingerprint=score.fingerprint,
                    row=msgspec.json.encode(_without_tokens(score)).decode(),
                    scored_at=now,
                )
                upsert(connection, rows, [whole], replacing(rows))

        await self._database.write(work)

    async def rows(self, model: str) -> dict[str, MemoryScore]:
        """Return the rows of the full matrix that are kept whole, by memory."""
        query = self._mine(rows, rows.c.key, rows.c.row).where(rows.c.model == model)

        def work(connection: Connection) -> dict[str, MemoryScore]:
            found = {key: _whole(row) for key, row in connection.execute(query)}
            return {key: row for key, row in found.items() if row is not None}

        return await self._database.read(work)

    async def record_candidate(self, candidate: FinetuneCandidate, model: str) -> None:
        """Keep a candidate; one found again replaces the older one.

        If it comes without an alternate, it keeps the older one's.
        """
        now = time.time()
        name = {
            "model": model,
            "timestamp_ns": candidate.timestamp_ns,
            "continuation_hash": response_hash(candidate.continuation_ids),
        }

        def work(connection: Connection) -> None:
            self._prune(connection, candidates.c.found_at)
            # A decision holds the text of its candidate, so it goes when the candidate has gone.
            connection.execute(delete(reviews).where(self._gone(reviews)))
            found = candidate
            if candidate.alternate_text is None:
                of = [candidates.c[column] == value for column, value in name.items()]
                query = self._mine(candidates, candidates.c.candidate).where(*of)
                kept = connection.execute(query).scalar_one_or_none()
                if kept is not None:
                    its = msgspec.json.decode(kept, type=FinetuneCandidate)
                    found = replace(
                        candidate,
                        alternate_text=its.alternate_text,
                        alternate_ids=its.alternate_ids,
                    )
            row = self._ours(
                **name,
                divergence=candidate.divergence,
                candidate=msgspec.json.encode(found).decode(),
                found_at=now,
            )
            upsert(connection, candidates, [row], replacing(candidates))

        await self._database.write(work)

    async def trained(self) -> TrainedMarks:
        """Return the marks of everything that sinks have accepted."""
        mine = trained.c.namespace == self._namespace
        return await self._database.read(lambda connection: read_marks(connection, mine))

    async def trained_timestamps(self) -> list[int]:
        """Return the timestamps of all marks, ascending, each once."""
        column = trained.c.timestamp_ns
        found = await self._all(self._mine(trained, column).distinct().order_by(column))
        return [row[0] for row in found]

    async def mark_trained(
        self, sent: Iterable[tuple[int, Sequence[int]]], job_id: str | None, sink: str = "http"
    ) -> None:
        """Mark responses, each a timestamp and its ids, as accepted by ``sink``.

        Their outcome is known now, so that they are no sends to it any more.
        """
        await self._mark([(stamp, response_hash(ids)) for stamp, ids in sent], sink, job_id)

    async def unmark_trained(self, job_id: str) -> int:
        """Remove the marks of the responses that were accepted as ``job_id``; return how many.

        A job that is a file may be named without its folder, if no other file is called so.
        """
        jobs = {row[0] for row in await self._all(self._mine(trained, trained.c.job_id).distinct())}
        if job_id not in jobs:
            files = [Path(it) for it in jobs if it and Path(it).is_absolute()]
            named = [str(it) for it in files if it.name == job_id]
            job_id = named[0] if len(named) == 1 else job_id
        return await self._delete(trained, trained.c.job_id == job_id)

    async def import_trained(self, timestamps: Iterable[int]) -> None:
        """Mark all responses with these timestamps as trained."""
        await self._mark([(stamp, "") for stamp in timestamps], "", None)

    async def import_scores(self, scores: Mapping[str, float], model: str) -> None:
        """Take over scores as last score and weight; the memories count as never measured."""
        imported = [
            self._ours(key=key, model=model, score=score, weight=score, last_scored=None, count=0)
            for key, score in scores.items()
        ]

        def changes(new: Any) -> dict[str, Any]:
            return {"score": new["score"], "weight": new["weight"]}

        await self._database.write(
            lambda connection: upsert(connection, memories, imported, changes)
        )

    async def forget(self, key: str) -> int:
        """Remove all of a memory, for every model; return how many scores, cells and rows."""

        def work(connection: Connection) -> int:
            gone = [
                connection.execute(
                    delete(table).where(table.c.namespace == self._namespace, table.c.key == key)
                ).rowcount
                for table in (memories, cells, rows, weights)
            ]
            return sum(gone[:-1])

        return await self._database.write(work)

    async def _mark(self, marks: Sequence[tuple[int, str]], sink: str, job_id: str | None) -> None:
        names = [
            self._ours(timestamp_ns=stamp, continuation_hash=hash_, sink=sink)
            for stamp, hash_ in marks
        ]
        accepted = [{**name, "job_id": job_id, "trained_at": time.time()} for name in names]
        same = [column == bindparam(f"_{column.name}") for column in sends.primary_key]
        settled = [{f"_{column}": value for column, value in name.items()} for name in names]

        def work(connection: Connection) -> None:
            upsert(connection, trained, accepted, replacing(trained))
            if settled:
                connection.execute(delete(sends).where(*same), settled)

        await self._database.write(work)

    def _gone(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row of ``table`` is about a candidate that is gone."""
        same = (
            table.c[name] == candidates.c[name]
            for name in ("namespace", "model", "timestamp_ns", "continuation_hash")
        )
        mine = table.c.namespace == self._namespace
        return and_(mine, ~exists().where(*same))

    def _ours(self, **values: Any) -> dict[str, Any]:
        return {"namespace": self._namespace, **values}


def read_marks(connection: Connection, *where: ColumnElement[bool]) -> TrainedMarks:
    """Return the marks that fulfil ``where``."""
    columns = (trained.c.timestamp_ns, trained.c.continuation_hash, trained.c.sink)
    found: dict[tuple[int, str], set[str]] = defaultdict(set)
    for stamp, hash_, sink in connection.execute(select(*columns).where(*where)):
        found[stamp, hash_].add(sink)
    return TrainedMarks({name: frozenset(sinks) for name, sinks in found.items()})


def _without_tokens(score: MemoryScore) -> MemoryScore:
    hold = score.hold
    return replace(
        score,
        divergences=tuple(replace(it, tokens=None) for it in score.divergences),
        hold=None if hold is None else tuple(replace(it, tokens=None) for it in hold),
    )


def _whole(row: str) -> MemoryScore | None:
    try:
        return msgspec.json.decode(row, type=MemoryScore)
    except msgspec.ValidationError:
        # JSON has no infinity: an unchecked scorer's row is measured again.
        return None
