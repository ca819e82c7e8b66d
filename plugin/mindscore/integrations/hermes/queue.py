"""Turns of an agent that wait to be scored, in a SQLite file that outlives the agent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mindscore.integrations.hermes.database import PrivateDatabase

LIMIT = 64 * 2**20
"""Bytes of turns that wait at most: some hundred long conversations."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS turns (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT NOT NULL,
    turns INTEGER NOT NULL,
    length INTEGER NOT NULL,
    size INTEGER NOT NULL,
    captured_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    about TEXT NOT NULL,
    messages BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS turns_by_session ON turns (session);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class WaitingTurn:
    """A request as it was sent, its answer at the end, and what the agent says about both.

    ``turns`` is how many turns of the session it stands for: it holds those before it.
    """

    id: int
    session: str
    turns: int
    messages: list[dict[str, Any]]
    about: dict[str, str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits. ``oldest`` is in seconds since the epoch, ``about`` of the newest turn ever.

    ``dropped`` is how many turns were, because too many waited.
    """

    sessions: int
    turns: int
    oldest: float | None
    dropped: int
    about: dict[str, str]


class TurnQueue:
    """The turns that wait, the oldest first. Every method may raise ``StoreError``.

    A turn that goes on from one that waits takes its place. Of more than ``limit`` bytes, the
    oldest are dropped.
    """

    def __init__(self, file: Path, limit: int = LIMIT) -> None:
        self._database = PrivateDatabase(file, "the queue of turns", _SCHEMA)
        self._limit = limit

    def prepare(self) -> None:
        """Open the file, and take into it what lies beside it: what ``put`` shall not wait for."""
        self._database.prepare()

    def put(
        self, session: str, messages: Sequence[Mapping[str, Any]], about: Mapping[str, str]
    ) -> int:
        """Add a turn; how many were dropped for it.

        Raises:
            TypeError: a message is not JSON.
        """
        text, told = msgspec.json.encode(messages), msgspec.json.encode(about).decode()
        with self._database.transaction() as connection:
            earlier = "FROM turns WHERE session = ? AND length < ?"
            mine = (session, len(messages))
            [(turns,)] = connection.execute(f"SELECT ifnull(sum(turns), 0) {earlier}", mine)
            connection.execute(f"DELETE {earlier}", mine)
            connection.execute(
                "INSERT INTO turns (session, turns, length, size, captured_at, about, messages) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (session, turns + 1, len(messages), len(text), time.time(), told, text),
            )
            connection.execute("REPLACE INTO facts VALUES ('about', ?)", (told,))
            [(size,)] = connection.execute("SELECT sum(size) FROM turns")
            dropped = 0
            while size > self._limit:
                [(oldest, bytes_, held)] = connection.execute(
                    "SELECT id, size, turns FROM turns ORDER BY id LIMIT 1"
                )
                connection.execute("DELETE FROM turns WHERE id = ?", (oldest,))
                size, dropped = size - bytes_, dropped + held
            if dropped:
                connection.execute(
                    "INSERT INTO facts VALUES ('dropped', ?) "
                    "ON CONFLICT DO UPDATE SET value = value + excluded.value",
                    (dropped,),
                )
        return dropped

    def next(self) -> WaitingTurn | None:
        """The oldest turn, which stays; those that were put off come last."""
        with self._database.transaction() as connection:
            found = connection.execute(
                "SELECT id, session, turns, messages, about FROM turns ORDER BY attempts, id"
            ).fetchone()
        if found is None:
            return None
        id_, session, turns, messages, about = found
        return WaitingTurn(
            id_, session, turns, msgspec.json.decode(messages), msgspec.json.decode(about)
        )

    def put_off(self, turn: WaitingTurn) -> None:
        """Let others come first, because it could not be scored now."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE turns SET attempts = attempts + 1 WHERE id = ?", (turn.id,))

    def remove(self, turn: WaitingTurn) -> None:
        """Forget a turn; one that has taken its place meanwhile stays."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM turns WHERE id = ?", (turn.id,))

    def waiting(self) -> Waiting:
        """What waits now."""
        with self._database.transaction() as connection:
            [(sessions, turns, oldest)] = connection.execute(
                "SELECT count(DISTINCT session), ifnull(sum(turns), 0), min(captured_at) FROM turns"
            )
            facts = dict(connection.execute("SELECT name, value FROM facts"))
        dropped, about = int(facts.get("dropped", 0)), msgspec.json.decode(facts.get("about", "{}"))
        return Waiting(sessions, turns, oldest, dropped, about)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
