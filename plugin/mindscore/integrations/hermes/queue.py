"""Turns of the agent that wait to be scored, in a SQLite file that outlives the agent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from mindscore.integrations.hermes.tables import QUEUE, facts, turns
from mindscore.store.database import Database
from mindscore.store.transactions import replacing, upsert

LIMIT_BYTES = 64 * 2**20
"""Bytes of turns that wait at most: some hundred long conversations."""


@dataclass(frozen=True, slots=True)
class WaitingTurn:
    """A request as it was sent, its reply at the end, and what the agent says about both.

    ``turns`` is how many turns of the session it stands for: it includes the earlier ones.
    """

    id: int
    session: str
    turns: int
    messages: list[dict[str, Any]]
    about: dict[str, str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The numbers of what waits, and of turns ``dropped`` because too many waited.

    ``oldest`` is in seconds since the epoch; ``about`` is of the newest turn ever.
    """

    sessions: int
    turns: int
    oldest: float | None
    dropped: int
    about: dict[str, str]


class TurnQueue:
    """The turns that wait, the oldest first. Every method may raise ``StoreError``.

    A turn replaces the waiting one that it continues. Beyond ``limit`` bytes, the oldest are
    dropped.
    """

    def __init__(self, file: Path, limit: int = LIMIT_BYTES) -> None:
        self._database = Database(file, QUEUE)
        self._limit = limit

    def prepare(self) -> None:
        """Open the file and write its log into it, so that ``put`` need not."""
        self._database.checkpoint()

    def put(
        self, session: str, messages: Sequence[Mapping[str, Any]], about: Mapping[str, str]
    ) -> int:
        """Add a turn; return how many were dropped for it.

        Raises:
            TypeError: a message is not JSON.
        """
        text, told = msgspec.json.encode(messages), msgspec.json.encode(about).decode()
        earlier = (turns.c.session == session, turns.c.length < len(messages))

        def work(connection: Connection) -> int:
            held = select(func.coalesce(func.sum(turns.c.turns), 0)).where(*earlier)
            row = {
                "session": session,
                "turns": connection.execute(held).scalar_one() + 1,
                "length": len(messages),
                "size": len(text),
                "captured_at": time.time(),
                "about": told,
                "messages": text,
            }
            connection.execute(delete(turns).where(*earlier))
            connection.execute(insert(turns), [row])
            _remember(connection, "about", told)
            return self._drop(connection)

        return self._database.write_now(work)

    def next(self) -> WaitingTurn | None:
        """Return the oldest turn, which stays; those that were put off come last."""
        columns = (turns.c.id, turns.c.session, turns.c.turns, turns.c.messages, turns.c.about)
        query = select(*columns).order_by(turns.c.attempts, turns.c.id).limit(1)
        found = self._database.read_now(lambda connection: connection.execute(query).first())
        if found is None:
            return None
        id_, session, held, messages, about = found
        decode = msgspec.json.decode
        return WaitingTurn(id_, session, held, decode(messages), decode(about))

    def put_off(self, turn: WaitingTurn) -> None:
        """Let others come first, because it could not be scored now."""
        later = update(turns).values(attempts=turns.c.attempts + 1).where(turns.c.id == turn.id)
        self._database.write_now(lambda connection: connection.execute(later))

    def remove(self, turn: WaitingTurn) -> None:
        """Remove a turn; one that has replaced it meanwhile stays."""
        gone = delete(turns).where(turns.c.id == turn.id)
        self._database.write_now(lambda connection: connection.execute(gone))

    def waiting(self) -> Waiting:
        """Return how much waits now."""
        query = select(
            func.count(turns.c.session.distinct()),
            func.coalesce(func.sum(turns.c.turns), 0),
            func.min(turns.c.captured_at),
        )

        def work(connection: Connection) -> Waiting:
            known = {row.name: row.value for row in connection.execute(select(facts))}
            about = msgspec.json.decode(known.get("about", "{}"))
            sessions, held, oldest = connection.execute(query).one()
            return Waiting(sessions, held, oldest, int(known.get("dropped", 0)), about)

        return self._database.read_now(work)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _drop(self, connection: Connection) -> int:
        """Remove the oldest turns beyond the limit; return how many turns they stood for."""
        size = connection.execute(select(func.sum(turns.c.size))).scalar_one()
        oldest = select(turns.c.id, turns.c.size, turns.c.turns).order_by(turns.c.id).limit(1)
        dropped = 0
        while size > self._limit:
            id_, bytes_, held = connection.execute(oldest).one()
            connection.execute(delete(turns).where(turns.c.id == id_))
            size, dropped = size - bytes_, dropped + held
        if dropped:
            before = select(facts.c.value).where(facts.c.name == "dropped")
            earlier = connection.execute(before).scalar_one_or_none() or "0"
            _remember(connection, "dropped", str(int(earlier) + dropped))
        return dropped


def _remember(connection: Connection, name: str, value: str) -> None:
    upsert(connection, facts, [{"name": name, "value": value}], replacing(facts))
