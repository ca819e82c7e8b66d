"""Turns that wait to be scored, in a SQLite file: what was acknowledged outlives the process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    inspect,
    or_,
    select,
    update,
)

from mindscore.collect.placing import AT_ONCE, Placement
from mindscore.collect.turns import Record, Turn
from mindscore.store.database import Database
from mindscore.store.namespace import DAY_S
from mindscore.store.turn_tables import COLLECTED, branches, known_turns, waiting

KEPT_DAYS = 30.0
"""Days after which a turn that could not be scored is dropped."""

FEWEST_ATTEMPTS = 48
"""Times that such a turn has failed before it is dropped, the last ones an hour apart: neither a
clock that was set nor weeks in which nothing ran are a reason."""

MAX_KNOWN = 200_000
"""Turns that are remembered, so that one that comes again is known; the oldest go."""

MAX_MEMORIES_BYTES = 64 * 2**20
"""Size of the memories that turns have named which wait no more; those of the oldest go."""

PRUNED_AT_ONCE = 500
"""Conversations that are forgotten in one step."""


class QueueFullError(Exception):
    """The turns that wait take all the room there is; with ``alone``, these by themselves."""

    def __init__(self, alone: bool) -> None:
        super().__init__()
        self.alone = alone


@dataclass(frozen=True, slots=True)
class WaitingTurn:
    """The last turn of a conversation, which stands for so many ``turns``.

    ``name`` is the conversation's, ``scope`` what its sender calls it, as in ``Turn``. ``times``
    are those of its responses that are known, in nanoseconds since the epoch, by ``Turn.exact``.
    """

    id: int
    branch: int
    name: str
    scope: str
    turns: int
    attempts: int
    record: Record
    times: Mapping[bytes, int]

    @property
    def named(self) -> bool:
        """True if its sender has a name for the conversation."""
        return bool(self.scope)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The numbers of what waits; ``size`` in bytes, ``oldest`` in seconds since the epoch."""

    conversations: int
    turns: int
    size: int
    oldest: float | None


class CollectedTurns:
    """The turns that wait. Every method may raise ``StoreError``.

    A turn takes the place of the waiting one that it continues. One that was seen before, alone or
    within a later one, is not stored again. ``limit`` is in bytes.
    """

    def __init__(self, file: Path, limit: int) -> None:
        self._database = Database(file, COLLECTED)
        self._limit = limit

    def prepare(self) -> None:
        """Open the file, forget what is too much, and write its log into it."""
        self._database.write_now(_add_columns)
        self._database.write_now(_forget)
        self._database.checkpoint()

    def put(self, turns: Sequence[Turn], idle_s: float) -> list[bool | None]:
        """Add all the turns, or none; return for each if it is new.

        ``None``: another turn of its conversation has its id, and it is left out. The others may be
        scored once nothing has followed them for ``idle_s`` seconds.

        Raises:
            QueueFullError: there is no room for all.
        """
        now = time.time()

        def work(connection: Connection) -> list[bool | None]:
            placement = Placement(connection, turns, now)
            stored = [placement.put(it) for it in turns]
            placement.write(now + idle_s)
            if any(stored):
                size = connection.execute(select(func.sum(waiting.c.size))).scalar_one()
                if size > self._limit:
                    raise QueueFullError(sum(len(it.record) for it in turns) > self._limit)
            return stored

        return self._database.write_now(work)

    def next(self, *, latest_s: float = 0.0, after: int | None = None) -> WaitingTurn | None:
        """Return the turn that is ready longest, which stays.

        One that is to be ready later than ``latest_s`` from now counts, too: the clock has been set
        back. With ``after``, return the one with the next id, ready or not.
        """
        now = time.time()
        at, id_of = waiting.c.ready_at, waiting.c.id
        is_next = or_(at <= now, at > now + latest_s) if after is None else id_of > after
        columns = (
            waiting.c.id, branches.c.id, branches.c.name, branches.c.scope, waiting.c.turns,
            waiting.c.attempts, waiting.c.record,
        )  # fmt: skip
        query = (
            select(*columns)
            .join(branches, branches.c.id == waiting.c.branch)
            .where(is_next)
            .order_by(*((at, id_of) if after is None else (id_of,)))
            .limit(1)
        )

        def work(connection: Connection) -> WaitingTurn | None:
            found = connection.execute(query).first()
            if found is None:
                return None
            id_, branch, name, scope, turns, attempts, raw = found
            of = known_turns.c
            known = select(of.digest, of.at_ns).where(of.branch == branch, of.at_ns.is_not(None))
            times = {it.digest: it.at_ns for it in connection.execute(known)}
            record = msgspec.json.decode(raw, type=Record)
            return WaitingTurn(id_, branch, name, scope, turns, attempts, record, times)

        return self._database.read_now(work)

    def seconds_until_ready(self) -> float | None:
        """Return how long it is until a turn may be scored, ``None`` if none waits."""
        query = select(func.min(waiting.c.ready_at))
        at = self._database.read_now(lambda connection: connection.execute(query).scalar_one())
        return None if at is None else max(0.0, at - time.time())

    def put_off(self, turn: WaitingTurn, seconds: float, *, failed: bool) -> None:
        """Let a turn be scored later, again or because it could not be scored now."""
        later = update(waiting).where(waiting.c.id == turn.id)
        later = later.values(
            ready_at=time.time() + seconds, attempts=turn.attempts + 1 if failed else 0
        )
        self._database.write_now(lambda connection: connection.execute(later))

    def prompts(self, turn: WaitingTurn, exact: Sequence[bytes]) -> list[bytes]:
        """Return the hash of the system prompt of each response of a conversation, where known.

        ``exact`` is as in ``Turn``. A fork has responses in common with another conversation.
        """
        of = known_turns.c
        query = select(of.digest, of.prompt).where(of.scope == turn.scope, of.prompt.is_not(None))
        its_own = query.where(of.branch == turn.branch)

        def work(connection: Connection) -> list[bytes]:
            found = {it.digest: it.prompt for it in connection.execute(its_own)}
            if turn.scope:
                for at in range(0, len(exact), AT_ONCE):
                    shared = query.where(of.digest.in_(exact[at : at + AT_ONCE]))
                    found |= {it.digest: it.prompt for it in connection.execute(shared)}
            return list(found.values())

        return self._database.read_now(work)

    def remove(self, turn: WaitingTurn) -> None:
        """Remove a turn; one that has taken its place meanwhile stays.

        The memories that it has named are those of later turns of the conversation, too.
        """
        gone = delete(waiting).where(waiting.c.id == turn.id)
        named = msgspec.json.encode({"memories": turn.record.memories})
        keep = update(branches).where(branches.c.id == turn.branch).values(memories=named)

        def work(connection: Connection) -> None:
            if connection.execute(gone).rowcount and turn.record.memories:
                connection.execute(keep)

        self._database.write_now(work)

    def drop_old(self) -> int:
        """Remove what waits for too long, and forget what is too much; return how many turns."""
        attempts = waiting.c.attempts
        is_old = and_(
            waiting.c.received_at < time.time() - KEPT_DAYS * DAY_S,
            # Without a failure, it waits for something else, and was ready since.
            or_(attempts == 0, attempts >= FEWEST_ATTEMPTS),
        )

        def work(connection: Connection) -> int:
            old = select(func.coalesce(func.sum(waiting.c.turns), 0)).where(is_old)
            dropped: int = connection.execute(old).scalar_one()
            connection.execute(delete(waiting).where(is_old))
            _forget(connection)
            return dropped

        return self._database.write_now(work)

    def waiting(self) -> Waiting:
        """Return how much waits now."""
        query = select(
            func.count(),
            func.coalesce(func.sum(waiting.c.turns), 0),
            func.coalesce(func.sum(waiting.c.size), 0),
            func.min(waiting.c.received_at),
        ).select_from(waiting)
        found = self._database.read_now(lambda connection: connection.execute(query).one())
        return Waiting(*found)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _add_columns(connection: Connection) -> None:
    """Add the columns that a file lacks which an earlier version made."""
    for column in (branches.c.memories, known_turns.c.prompt):
        table = column.table.name
        if column.name not in {it["name"] for it in inspect(connection).get_columns(table)}:
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column.name} BLOB")


def _forget(connection: Connection) -> None:
    """Forget the conversations that were seen longest ago, beyond ``MAX_KNOWN`` turns.

    Beyond ``MAX_MEMORIES_BYTES``, only the memories that were named in them are forgotten.
    """
    size = select(func.coalesce(func.sum(func.length(branches.c.memories)), 0))
    naming = select(branches.c.id).where(branches.c.memories.is_not(None))
    naming = naming.order_by(branches.c.seen_at).limit(PRUNED_AT_ONCE)
    while connection.execute(size).scalar_one() > MAX_MEMORIES_BYTES:
        gone = list(connection.execute(naming).scalars())
        connection.execute(update(branches).where(branches.c.id.in_(gone)).values(memories=None))
    count = select(func.count()).select_from(known_turns)
    oldest = (
        select(branches.c.id)
        .where(~_waits(branches.c.id))
        .order_by(branches.c.seen_at)
        .limit(PRUNED_AT_ONCE)
    )
    while connection.execute(count).scalar_one() > MAX_KNOWN:
        gone = list(connection.execute(oldest).scalars())
        if not gone:
            return
        connection.execute(delete(known_turns).where(known_turns.c.branch.in_(gone)))
        connection.execute(delete(branches).where(branches.c.id.in_(gone)))


def _waits(branch: ColumnElement[int]) -> ColumnElement[bool]:
    return exists().where(waiting.c.branch == branch)
