"""The ledger of internalisation: what the model says without memories, round after round."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Float, Select, Table, select, update

from mindscore._util.text import iso_utc
from mindscore.measure.internalisation import LedgerEntry, MemoryVersion, RefusedRound, Round
from mindscore.store.namespace import NamespaceTables
from mindscore.store.records import intact, row_id
from mindscore.store.schema import Int, Str, candidates, cells, metadata
from mindscore.store.transactions import replacing, upsert

# A round of training, or the model before the first: what an adapter makes of unrelated answers.
rounds = Table(
    "rounds",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    # The job's id, where a trainer made it.
    Column("round", Str, primary_key=True),
    # Empty: none, or not known.
    Column("adapter", Str, nullable=False),
    # JSON: the total log-probability and the number of tokens of each answer; of a round that has
    # not passed its guard, a text that says why.
    Column("unrelated", Str, nullable=False),
    Column("measured_at", Float, nullable=False),
)

# A response that depends on a memory, as one round makes it.
ledger = Table(
    "ledger",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    Column("round", Str, primary_key=True),
    Column("key", Str, primary_key=True),
    Column("text_hash", Str, primary_key=True),
    Column("timestamp_ns", Int, primary_key=True),
    Column("continuation_hash", Str, primary_key=True),
    Column("tokens", Int, nullable=False),
    Column("with_memories", Float, nullable=False),
    Column("without_memories", Float, nullable=False),
    # JSON: the total without memories by the frame in which the question was asked.
    Column("reworded", Str, nullable=False),
    Column("measured_at", Float, nullable=False),
)

_ENTRY = tuple(LedgerEntry.__slots__)


@dataclass(frozen=True, slots=True)
class MemoryEffect:
    """The effect of one memory on one response, in nats, as the store has it.

    ``hold`` is that of the memory alone; it and ``noise`` are ``None`` where they were not
    measured.
    """

    memory: MemoryVersion
    signed: float
    hold: float | None
    noise: float | None


ResponseName = tuple[int, str]
"""A response's timestamp, in nanoseconds, and the hash of its token ids."""


class _NodeId(msgspec.Struct):
    """The part of a kept candidate that names its node."""

    node_id: str


class Ledger(NamespaceTables):
    """The rounds of one namespace; methods may raise ``StoreError``.

    They are kept until ``forget``: without the first round, later ones say nothing.
    """

    async def models(self) -> list[str]:
        """Return the models that have rounds."""
        query = self._select(rounds, rounds.c.model).distinct().order_by(rounds.c.model)
        return [row[0] for row in await self._all(query)]

    @classmethod
    def current(cls, models: Sequence[str]) -> list[str]:
        """Return ``models`` without those whose weights were replaced since."""
        replaced = {it for model in models for it in cls.replaced(models, model)}
        return [it for it in models if it not in replaced]

    @staticmethod
    def replaced(models: Iterable[str], model: str) -> list[str]:
        """Return those of ``models`` that are ``model`` with weights that were replaced since."""
        return [it for it in models if it.startswith(f"{model}{_BEFORE}") and it.endswith(")")]

    async def rounds(self, model: str) -> list[Round]:
        """Return the rounds of ``model``, in the order in which they were first measured."""
        query = self._rounds_of(model)
        entries = select(row_id(ledger), *(ledger.c[it] for it in ("round", *_COLUMNS)))
        entries = entries.where(self._in_namespace(ledger), ledger.c.model == model)
        entries = entries.order_by(ledger.c.key, ledger.c.text_hash, ledger.c.timestamp_ns)

        def work(connection: Connection) -> list[Round]:
            found: dict[str, list[LedgerEntry]] = {}
            for name, entry in intact(ledger, connection.execute(entries), _entry):
                found.setdefault(name, []).append(entry)
            made = intact(rounds, connection.execute(query), _round)
            return [replace(it, entries=tuple(found.get(it.name, ()))) for it in made]

        return await self._database.read(work)

    async def refused(self, model: str) -> list[RefusedRound]:
        """Return the trainings of ``model`` that have not passed their guard, oldest first."""
        query = self._rounds_of(model)

        def work(connection: Connection) -> list[RefusedRound]:
            return list(intact(rounds, connection.execute(query), _refused))

        return await self._database.read(work)

    def _rounds_of(self, model: str) -> Select[Any]:
        """Select the rounds of ``model``, the oldest first, those that were refused too."""
        columns = [rounds.c[it] for it in ("round", "adapter", "unrelated", "measured_at")]
        query = self._select(rounds, row_id(rounds), *columns).where(rounds.c.model == model)
        return query.order_by(rounds.c.measured_at)

    async def refuse(self, model: str, refused: RefusedRound) -> None:
        """Keep a training that has not passed its guard, unless its round was measured."""
        row = self._with_namespace(
            model=model,
            round=refused.name,
            adapter=refused.adapter,
            unrelated=msgspec.json.encode(refused.why).decode(),
            measured_at=refused.refused_at,
        )

        def is_refused(_: Any) -> ColumnElement[bool]:
            # A text, as JSON has it.
            return rounds.c.unrelated.startswith('"')

        def work(connection: Connection) -> None:
            upsert(connection, rounds, [row], replacing(rounds), is_refused)

        await self._database.write(work)

    async def record(self, model: str, round_: Round, *, replaces: Round | None = None) -> None:
        """Keep a round; what it has of the same round already is replaced.

        ``replaces``: a round of the same name, but of weights that were replaced. What the model
        had until now becomes the ledger of a model of its own, whose name ``replaced`` knows;
        unless another process was quicker.
        """
        row = self._with_namespace(
            model=model,
            round=round_.name,
            adapter=round_.adapter,
            unrelated=msgspec.json.encode(round_.unrelated).decode(),
            measured_at=round_.measured_at,
        )
        rows = [
            self._with_namespace(
                model=model, round=round_.name, measured_at=time.time(), **_values(it)
            )
            for it in round_.entries
        ]

        def work(connection: Connection) -> None:
            if replaces is not None and self._has(connection, model, replaces):
                for table in (rounds, ledger):
                    mine = (self._in_namespace(table), table.c.model == model)
                    connection.execute(update(table).where(*mine).values(model=_until_now(model)))
            upsert(connection, rounds, [row], replacing(rounds))
            upsert(connection, ledger, rows, replacing(ledger))

        await self._database.write(work)

    def _has(self, connection: Connection, model: str, round_: Round) -> bool:
        kept = self._select(rounds, rounds.c.measured_at).where(
            rounds.c.model == model, rounds.c.round == round_.name
        )
        return connection.execute(kept).scalar() == round_.measured_at

    async def effects(
        self, model: str, names: Iterable[ResponseName]
    ) -> dict[ResponseName, list[MemoryEffect]]:
        """Return the effects on candidates of the memories that were measured one by one.

        A row of the matrix counts before a score within a window, and a later one before an earlier
        one. A candidate without any is left out.
        """
        wanted = set(names)
        columns = (candidates.c[it] for it in ("timestamp_ns", "continuation_hash", "conversation"))
        kept = self._select(candidates, row_id(candidates), *columns, candidates.c.candidate)
        kept = kept.where(candidates.c.model == model)
        measured = self._select(cells, *(cells.c[it] for it in _CELL)).where(
            cells.c.model == model, cells.c.mode.in_(("full", "incremental"))
        )
        measured = measured.order_by(cells.c.mode.desc(), cells.c.scored_at)

        def place(stamp: int, hash_: str, talk: str, text: str) -> tuple[ResponseName, Any] | None:
            if (stamp, hash_) not in wanted:
                return None
            return (stamp, hash_), (talk, msgspec.json.decode(text, type=_NodeId).node_id)

        def work(connection: Connection) -> dict[ResponseName, list[MemoryEffect]]:
            places = dict(intact(candidates, connection.execute(kept), place))
            found: dict[tuple[str, str], dict[str, MemoryEffect]] = {}
            for talk in {talk for talk, _ in places.values()}:
                rows = connection.execute(measured.where(cells.c.conversation == talk))
                for node, key, text_hash, *effect in rows:
                    memory = MemoryVersion(key, text_hash)
                    found.setdefault((talk, node), {})[key] = MemoryEffect(memory, *effect)
            its = {name: found[where] for name, where in places.items() if where in found}
            return {name: list(effects.values()) for name, effects in its.items()}

        return await self._database.read(work)


_BEFORE = " (before "


def _until_now(model: str) -> str:
    """Return the name of a model's weights that are replaced now."""
    return f"{model}{_BEFORE}{iso_utc(round(time.time()))})"


_CELL = ("node_id", "key", "text_hash", "signed", "hold", "noise")

_COLUMNS = (
    *("key", "text_hash", "timestamp_ns", "continuation_hash", "tokens"),
    *("with_memories", "without_memories", "reworded"),
)


def _entry(name: str, *columns: Any) -> tuple[str, LedgerEntry]:
    key, text_hash, *rest, reworded = columns
    values = [MemoryVersion(key, text_hash), *rest, decode_reworded(reworded)]
    return name, msgspec.convert(dict(zip(_ENTRY, values, strict=True)), type=LedgerEntry)


def _values(entry: LedgerEntry) -> dict[str, Any]:
    values = (entry.memory.key, entry.memory.text_hash, entry.timestamp_ns, entry.continuation_hash)
    totals = (entry.tokens, entry.with_memories, entry.without_memories)
    reworded = msgspec.json.encode(entry.reworded).decode()
    return dict(zip(_COLUMNS, (*values, *totals, reworded), strict=True))


def _round(name: str, adapter: str, unrelated: str, measured_at: float) -> Round | None:
    found = decode_unrelated(unrelated)
    return None if isinstance(found, str) else Round(name, adapter, measured_at, found, ())


def _refused(name: str, adapter: str, unrelated: str, at: float) -> RefusedRound | None:
    why = decode_unrelated(unrelated)
    return RefusedRound(name, adapter, at, why) if isinstance(why, str) else None


def decode_reworded(text: str) -> dict[str, float]:
    """Return the totals by frame as they were kept.

    Raises:
        msgspec.MsgspecError: they are damaged.
    """
    return msgspec.json.decode(text, type=dict[str, float])


def decode_unrelated(text: str) -> tuple[tuple[float, int], ...] | str:
    """Return the totals and numbers of tokens as they were kept, or why there are none.

    Raises:
        msgspec.MsgspecError: they are damaged.
    """
    return msgspec.json.decode(text, type=tuple[tuple[float, int], ...] | str)
