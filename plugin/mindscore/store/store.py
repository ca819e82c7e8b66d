"""Scores, the matrix, candidates and trained marks of a namespace."""

from __future__ import annotations

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    select,
    update,
)

from mindhooks import FinetuneCandidate, MemoryScore
from mindscore._util.errors import StoreError, UsageError
from mindscore._util.files import write_files
from mindscore._util.text import harmless_json
from mindscore.measure.prompts import response_hash
from mindscore.store.database import NamespaceTables, replacing, upsert
from mindscore.store.records import check_candidate, checked, decode_candidate, intact, row_id
from mindscore.store.schema import (
    candidates,
    cells,
    conversation_scores,
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
    ``text_hash`` is of the text that the scores are of; empty: not known, as of an imported one.
    """

    key: str
    model: str
    score: float
    weight: float
    last_scored: float | None
    count: int
    text_hash: str = ""


@dataclass(frozen=True, slots=True)
class KnownScore:
    """The last incremental score of a memory in one conversation, in nats.

    ``text_hash`` is of the text that was scored, ``conversation`` is ``Context.id``; both are empty
    where they are not known. ``scored_at`` is in seconds since the epoch.
    """

    key: str
    model: str
    text_hash: str
    conversation: str
    score: float
    scored_at: float
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

    async def last_scored(
        self, model: str, conversation: str | None = None, texts: Mapping[str, str] | None = None
    ) -> dict[str, float]:
        """Return when ``model`` last scored each memory, in seconds since the epoch.

        With a ``conversation``, when it did in that one; with ``texts``, ``{key: text hash}``, only
        of memories whose text was this, or is not known: such a score stands for whatever text the
        memory has, until it is scored anew.
        """
        found: dict[str, float] = {}
        for it in await self._known_scores(model, conversation):
            if texts is None or it.text_hash in ("", texts.get(it.key)):
                found[it.key] = it.scored_at
        return found

    async def latest_scores(
        self, model: str | None = None, conversation: str | None = None
    ) -> dict[str, KnownScore]:
        """Return the latest known score of each memory, by key.

        Only those of ``model``, and in ``conversation``, where they are given.
        """
        return {it.key: it for it in await self._known_scores(model, conversation)}

    async def _known_scores(self, model: str | None, conversation: str | None) -> list[KnownScore]:
        """List scores by conversation, the oldest first."""
        table = conversation_scores
        columns = [table.c[name] for name in KnownScore.__slots__]
        query = self._mine(table, row_id(table), *columns).order_by(_believable(table.c.scored_at))
        for column, value in ((table.c.model, model), (table.c.conversation, conversation)):
            query = query if value is None else query.where(column == value)
        make = checked(KnownScore)
        return await self._database.read(
            lambda connection: list(intact(table, connection.execute(query), make))
        )

    async def memories(
        self,
        model: str | None = None,
        *,
        search: str = "",
        order: str = "weight",
        limit: int | None = None,
        offset: int = 0,
    ) -> list[StoredMemory]:
        """List the memories of the namespace, of every model or of ``model``, by ``order``.

        A memory is listed once for each model: with the text that was scored last. ``search`` is a
        part of the key. ``order`` is a field of ``StoredMemory``; numbers are listed from the
        largest. ``limit`` memories from ``offset`` on are listed, else all.
        """
        current = self._current(model, search).subquery()
        by = current.c[order]
        first = by if order in ("key", "model") else by.desc()
        columns = [current.c[name] for name in StoredMemory.__slots__]
        query = (
            select(current.c.number, *columns)
            .where(current.c.rank == 1)
            .order_by(first, current.c.key, current.c.model)
            .limit(limit)
            .offset(offset)
        )
        make = checked(StoredMemory)
        return await self._database.read(
            lambda connection: list(intact(memories, connection.execute(query), make))
        )

    async def count_memories(self, model: str | None = None, *, search: str = "") -> int:
        """Count what ``memories`` lists without a limit."""
        current = self._current(model, search).subquery()
        query = select(func.count()).select_from(current).where(current.c.rank == 1)
        [[count]] = await self._all(query)
        return int(count)

    def _current(self, model: str | None, search: str) -> Select[Any]:
        """Return the memories with the rank of their text: 1 for the one scored last."""
        table = memories.c
        newest = (_believable(table.last_scored).desc(), row_id(memories).desc())
        rank = func.row_number().over(partition_by=(table.key, table.model), order_by=newest)
        columns = [table[name] for name in StoredMemory.__slots__]
        number = row_id(memories).label("number")
        query = self._mine(memories, number, *columns, rank.label("rank"))
        if model is not None:
            query = query.where(table.model == model)
        return query.where(table.key.contains(search, autoescape=True)) if search else query

    async def record_score(
        self,
        score: MemoryScore,
        model: str,
        alpha: float,
        *,
        conversation: str = "",
        text_hash: str = "",
        run: str | None = None,
    ) -> None:
        """Keep an incremental score, and update the memory's weight, time and count.

        Those are of the text of ``text_hash``. A row whose text is not known (imported, or of an
        older version) becomes this text's. A score that ``run`` has recorded already is not
        recorded again.
        """
        now = time.time()
        name = {"key": score.key, "model": model, "text_hash": text_hash}
        fresh = {"score": score.score, "last_scored": now}
        row = {**self._ours(**name), **fresh, "weight": score.score, "count": 1}
        weight = alpha * score.score + (1 - alpha) * memories.c.weight
        there = {**self._ours(**name), "conversation": conversation, "score": score.score}
        point = {**there, "run": run or uuid.uuid4().hex, "scored_at": now}

        def changes(_: Any) -> dict[str, Any]:
            return {**fresh, "weight": weight, "count": memories.c.count + 1}

        def changes_there(new: Any) -> dict[str, Any]:
            count = conversation_scores.c.count + 1
            return {"score": new["score"], "scored_at": new["scored_at"], "count": count}

        def work(connection: Connection) -> None:
            self._prune(connection, weights.c.scored_at)
            unique = (it.name for it in weights.primary_key)
            told = select(weights.c.run).where(*(weights.c[it] == point[it] for it in unique))
            if connection.execute(told).first() is not None:
                return
            if text_hash:
                self._adopt(connection, name)
            upsert(connection, memories, [row], changes)
            upsert(
                connection,
                conversation_scores,
                [{**there, "scored_at": now, "count": 1}],
                changes_there,
            )
            led_to = select(memories.c.weight).where(*self._is(memories, name))
            point["weight"] = connection.execute(led_to).scalar_one()
            upsert(connection, weights, [point], replacing(weights))

        await self._database.write(work)

    def _adopt(self, connection: Connection, name: Mapping[str, str]) -> None:
        """Give the memory's row of unknown text this text, unless that has a row of its own."""
        known = select(memories.c.key).where(*self._is(memories, name))
        if connection.execute(known).first() is not None:
            return
        unknown = {**name, "text_hash": ""}
        for table in (memories, weights, conversation_scores):
            its = update(table).where(*self._is(table, unknown))
            connection.execute(its.values(text_hash=name["text_hash"]))

    def _is(self, table: Table, name: Mapping[str, Any]) -> list[ColumnElement[bool]]:
        return [table.c[column] == value for column, value in self._ours(**name).items()]

    async def record_row(
        self, score: MemoryScore, model: str, *, conversation: str = "", text_hash: str = ""
    ) -> None:
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
                    conversation=conversation,
                    text_hash=text_hash,
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
                    conversation=conversation,
                    fingerprint=score.fingerprint,
                    row=msgspec.json.encode(_without_tokens(score)).decode(),
                    scored_at=now,
                )
                upsert(connection, rows, [whole], replacing(rows))

        await self._database.write(work)

    async def rows(self, model: str, conversation: str | None = None) -> dict[str, MemoryScore]:
        """Return the rows of the matrix that are kept whole, by memory; the latest of each.

        With a ``conversation``, only its rows.
        """
        query = self._mine(rows, row_id(rows), rows.c.row).where(rows.c.model == model)
        query = query.order_by(_believable(rows.c.scored_at))
        if conversation is not None:
            query = query.where(rows.c.conversation == conversation)

        def work(connection: Connection) -> dict[str, MemoryScore]:
            return {it.key: it for it in intact(rows, connection.execute(query), _whole)}

        return await self._database.read(work)

    async def record_candidate(
        self, candidate: FinetuneCandidate, model: str, *, conversation: str = ""
    ) -> None:
        """Keep a candidate; one found again replaces the older one.

        If it comes without an alternate, it keeps the older one's.

        Raises:
            StoreError: one of its token ids can be no model's, or the store cannot be written.
        """
        try:
            check_candidate(candidate)
        except ValueError as error:
            raise StoreError(f"the candidate cannot be kept: {error}") from None
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
                query = self._mine(candidates, row_id(candidates), candidates.c.candidate)
                kept = connection.execute(query.where(*of))
                for its in intact(candidates, kept, decode_candidate):
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
                conversation=conversation,
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
        """Remove the marks of the responses that were accepted as ``job_id``; return how many."""
        return await self._delete(trained, trained.c.job_id == job_id)

    async def import_trained(self, timestamps: Iterable[int]) -> None:
        """Mark all responses with these timestamps as trained."""
        await self._mark([(stamp, "") for stamp in timestamps], "", None)

    async def import_scores(self, scores: Mapping[str, float], model: str) -> None:
        """Take over scores as last score and weight; the memories count as never measured."""
        current = self._current(model, "").subquery()
        known = select(current.c.key, current.c.text_hash).where(current.c.rank == 1)

        def changes(new: Any) -> dict[str, Any]:
            return {"score": new["score"], "weight": new["weight"]}

        def work(connection: Connection) -> None:
            hashes = {it.key: it.text_hash for it in connection.execute(known)}
            imported = [
                self._ours(
                    key=key,
                    text_hash=hashes.get(key, ""),
                    model=model,
                    score=score,
                    weight=score,
                    last_scored=None,
                    count=0,
                )
                for key, score in scores.items()
            ]
            upsert(connection, memories, imported, changes)

        await self._database.write(work)

    async def forget(self, key: str) -> int:
        """Remove all of a memory, for every model; return how many scores, cells and rows."""

        def work(connection: Connection) -> int:
            gone = [
                connection.execute(
                    delete(table).where(table.c.namespace == self._namespace, table.c.key == key)
                ).rowcount
                for table in (memories, cells, rows, weights, conversation_scores)
            ]
            return sum(gone[:-2])

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


def _believable(when: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the time, and 0 in the place of one to come, which a wrong clock has given."""
    return case((when > time.time(), 0.0), else_=func.coalesce(when, 0.0))


def _whole(row: str) -> MemoryScore | None:
    try:
        return msgspec.json.decode(row, type=MemoryScore)
    except msgspec.ValidationError:
        # JSON has no infinity: an unchecked scorer's row is measured again.
        return None
