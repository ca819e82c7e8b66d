"""The scores of a namespace: of memories as they fall due, and of the full matrix."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    case,
    delete,
    func,
    select,
    update,
)

from mindhooks import MemoryScore
from mindscore.store.ledger import ledger
from mindscore.store.namespace import NamespaceTables
from mindscore.store.records import checked, intact, row_id
from mindscore.store.schema import (
    cells,
    conversation_scores,
    matrix_notes,
    memories,
    memory_texts,
    receipts,
    rows,
    weights,
)
from mindscore.store.seen import NOT_SEEN, Seen, keep_evidence
from mindscore.store.transactions import replacing, scored_later, upsert


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


class Scores(NamespaceTables):
    """The scores of one namespace: the part of ``Store`` that is about memories."""

    async def last_scored(
        self, model: str, conversation: str | None = None, texts: Mapping[str, str] | None = None
    ) -> dict[str, float]:
        """Return when ``model`` last scored each memory, in seconds since the epoch.

        With a ``conversation``, when it did in that one; with ``texts``, ``{key: text hash}``, only
        of memories whose text was this, or is not known: such a score stands for whatever text the
        memory has, until it is scored anew.
        """
        return latest_times(await self.known_scores(model, conversation), texts)

    async def latest_scores(
        self,
        model: str | None = None,
        conversation: str | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> dict[str, KnownScore]:
        """Return the latest known score of each memory, by key.

        Only those of ``model``, in ``conversation``, and of ``texts``, ``{key: text hash}``, where
        they are given. A score whose text is not known is none of these texts'.
        """
        return {
            it.key: it
            for it in await self.known_scores(model, conversation)
            if texts is None or it.text_hash == texts.get(it.key)
        }

    async def known_scores(
        self, model: str | None = None, conversation: str | None = None
    ) -> list[KnownScore]:
        """List scores by conversation, the oldest first.

        Only those of ``model`` and in ``conversation``, where they are given.
        """
        table = conversation_scores
        columns = [table.c[name] for name in KnownScore.__slots__]
        query = self._select(table, row_id(table), *columns).order_by(believable(table.c.scored_at))
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

    async def memory(self, model: str, key: str) -> StoredMemory | None:
        """Return one memory, or ``None`` if ``model`` never scored it."""
        current = self._current(model).where(memories.c.key == key).subquery()
        columns = [current.c[name] for name in StoredMemory.__slots__]
        query = select(current.c.number, *columns).where(current.c.rank == 1)
        make = checked(StoredMemory)
        return await self._database.read(
            lambda connection: next(intact(memories, connection.execute(query), make), None)
        )

    async def count_memories(self, model: str, *, search: str = "") -> int:
        """Count the memories of ``model``: what ``memories`` lists without a limit."""
        table = memories.c
        query = self._select(memories, func.count(table.key.distinct())).where(table.model == model)
        [[count]] = await self._all(query.where(table.key.icontains(search, autoescape=True)))
        return int(count)

    def _current(self, model: str | None, search: str = "") -> Select[Any]:
        """Return the memories with the rank of their text: 1 for the one scored last."""
        table = memories.c
        newest = (believable(table.last_scored).desc(), row_id(memories).desc())
        rank = func.row_number().over(partition_by=(table.key, table.model), order_by=newest)
        columns = [table[name] for name in StoredMemory.__slots__]
        number = row_id(memories).label("number")
        query = self._select(memories, number, *columns, rank.label("rank"))
        if model is not None:
            query = query.where(table.model == model)
        return query.where(table.key.icontains(search, autoescape=True)) if search else query

    async def record_score(
        self,
        score: MemoryScore,
        model: str,
        alpha: float,
        *,
        conversation: str = "",
        text_hash: str = "",
        run: str | None = None,
        seen: Seen = NOT_SEEN,
    ) -> None:
        """Keep an incremental score, and update the memory's weight, time and count.

        Weight and count are of the text of ``text_hash``. A row whose text is not known (imported,
        or of an older version) becomes this text's. The score's cells and, from ``seen``, the
        memory's text are kept as evidence. A score that ``run`` has recorded already is not
        recorded again.
        """
        now = time.time()
        name = {"key": score.key, "model": model, "text_hash": text_hash}
        fresh = {"score": score.score, "last_scored": now}
        row = {**self._with_namespace(**name), **fresh, "weight": score.score, "count": 1}
        weight = alpha * score.score + (1 - alpha) * memories.c.weight
        there = {**self._with_namespace(**name), "conversation": conversation, "score": score.score}
        point = {**there, "run": run or uuid.uuid4().hex, "scored_at": now}
        about = self._with_namespace(**name, conversation=conversation, scored_at=now)

        def changes(_: Any) -> dict[str, Any]:
            return {**fresh, "weight": weight, "count": memories.c.count + 1}

        def changes_there(new: Any) -> dict[str, Any]:
            count = conversation_scores.c.count + 1
            return {"score": new["score"], "scored_at": new["scored_at"], "count": count}

        def work(connection: Connection) -> None:
            self._prune(
                connection,
                weights.c.scored_at,
                conversation_scores.c.scored_at,
                cells.c.scored_at,
                memory_texts.c.last_seen,
            )
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
            keep_evidence(connection, score, seen, about)

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
        return [table.c[column] == value for column, value in self._with_namespace(**name).items()]

    async def add_scores(self, scores: Iterable[KnownScore]) -> None:
        """Keep when memories were scored elsewhere; adding the same scores twice changes nothing.

        The running weights stay as they are.
        """
        if not (found := [self._with_namespace(**asdict(it)) for it in scores]):
            return
        table = conversation_scores

        def changes(new: Any) -> dict[str, Any]:
            return {**replacing(table)(new), "count": table.c.count + new["count"]}

        await self._database.write(
            lambda connection: upsert(connection, table, found, changes, where=scored_later(table))
        )

    async def import_scores(self, scores: Mapping[str, float], model: str) -> None:
        """Take over scores as last score and weight; the memories count as never measured."""
        current = self._current(model).subquery()
        known = select(current.c.key, current.c.text_hash).where(current.c.rank == 1)

        def changes(new: Any) -> dict[str, Any]:
            return {"score": new["score"], "weight": new["weight"]}

        def work(connection: Connection) -> None:
            hashes = {it.key: it.text_hash for it in connection.execute(known)}
            imported = [
                self._with_namespace(
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
        """Remove all of a memory, for every model; return how many scores, cells and rows.

        The cells of an incremental score are not counted beside it.
        """

        def work(connection: Connection) -> int:
            def remove(table: Table, *where: ColumnElement[bool]) -> int:
                its = delete(table).where(self._in_namespace(table), table.c.key == key, *where)
                return connection.execute(its).rowcount

            counted = remove(memories) + remove(cells, cells.c.mode == "full") + remove(rows)
            for table in (cells, weights, conversation_scores, memory_texts, ledger):
                remove(table)
            name = msgspec.json.encode(key).decode()
            for text in (receipts.c.receipt, matrix_notes.c.note):
                named = text.contains(name, autoescape=True)
                connection.execute(delete(text.table).where(self._in_namespace(text.table), named))
            return counted

        return await self._database.write(work)


def latest_times(
    scores: Iterable[KnownScore], texts: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Return when each memory was scored last, of ``scores`` of which the oldest come first.

    With ``texts``, as ``Scores.last_scored`` has it.
    """
    return {
        it.key: it.scored_at
        for it in scores
        if texts is None or it.text_hash in ("", texts.get(it.key))
    }


def believable(when: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the time, and 0 in the place of one to come, which a wrong clock has given."""
    return case((when > time.time(), 0.0), else_=func.coalesce(when, 0.0))
