"""What was measured of Hermes' memories: by response, so that a report can say of how many."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mindhooks import FinetuneCandidate
from mindscore.integrations.hermes.database import PrivateDatabase
from mindscore.measure.fingerprint import response_hash

DAY_S = 24 * 3600.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS memories (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, seen_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS drops (
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    response TEXT NOT NULL,
    divergence REAL NOT NULL,
    measured_at REAL NOT NULL,
    PRIMARY KEY (key, model, response)
);
CREATE TABLE IF NOT EXISTS candidates (
    response TEXT NOT NULL,
    model TEXT NOT NULL,
    divergence REAL NOT NULL,
    text TEXT NOT NULL,
    found_at REAL NOT NULL,
    PRIMARY KEY (response, model)
);
"""


@dataclass(frozen=True, slots=True)
class MeasuredMemory:
    """A memory, on how many responses it was measured, and its largest divergence, in nats.

    ``is_current``: the newest conversation with memories of its kind holds it.
    """

    key: str
    text: str
    responses: int
    largest: float
    is_current: bool

    @property
    def kind(self) -> str:
        """As ``kind_of`` the key."""
        return kind_of(self.key)


@dataclass(frozen=True, slots=True)
class FoundCandidate:
    """A response for training: its divergence without any memory, in nats, and its text."""

    divergence: float
    text: str


def kind_of(key: str) -> str:
    """``memory`` or ``user`` for Hermes' own files, ``recall`` for a provider's, else ``other``."""
    parts = key.split(":")
    return parts[1] if len(parts) == 3 and parts[0] == "hermes" else "other"


class HermesFindings:
    """What was found, by the model that scored. Every method may raise ``StoreError``."""

    def __init__(self, file: Path) -> None:
        self._database = PrivateDatabase(file, "the findings", _SCHEMA)

    def record(
        self,
        model: str,
        memories: Mapping[str, str],
        drops: Mapping[str, Mapping[str, float]],
        candidates: Iterable[FinetuneCandidate],
        retention_days: float,
    ) -> None:
        """Keep what one conversation gave; ``drops`` are divergences by key and response.

        What was measured again replaces what was kept; what is older than ``retention_days`` goes,
        with 0 nothing does.
        """
        now = time.time()
        with self._database.transaction() as connection:
            if retention_days:
                old = (now - retention_days * DAY_S,)
                connection.execute("DELETE FROM drops WHERE measured_at < ?", old)
                connection.execute("DELETE FROM candidates WHERE found_at < ?", old)
                connection.execute("DELETE FROM memories WHERE seen_at < ?", old)
            connection.executemany(
                "REPLACE INTO memories VALUES (?, ?, ?)",
                [(key, text, now) for key, text in memories.items()],
            )
            connection.executemany(
                "REPLACE INTO drops VALUES (?, ?, ?, ?, ?)",
                [
                    (key, model, response, divergence, now)
                    for key, row in drops.items()
                    for response, divergence in row.items()
                ],
            )
            connection.executemany(
                "REPLACE INTO candidates VALUES (?, ?, ?, ?, ?)",
                [
                    (response_hash(it.continuation_ids), model, it.divergence,
                     it.response_text, now)
                    for it in candidates
                ],
            )  # fmt: skip

    def memories(self, model: str) -> list[MeasuredMemory]:
        """Every memory that ``model`` measured, the largest divergence first."""
        with self._database.transaction() as connection:
            found = connection.execute(
                "SELECT key, text, count(*), max(divergence), seen_at "
                "FROM memories JOIN drops USING (key) WHERE model = ? "
                "GROUP BY key ORDER BY max(divergence) DESC, key",
                (model,),
            ).fetchall()
        newest: dict[str, float] = {}
        for key, *_, seen_at in found:
            newest[kind_of(key)] = max(seen_at, newest.get(kind_of(key), 0.0))
        return [
            MeasuredMemory(key, text, responses, largest, seen_at == newest[kind_of(key)])
            for key, text, responses, largest, seen_at in found
        ]

    def candidates(self, model: str) -> list[FoundCandidate]:
        """Every candidate that ``model`` found, the largest divergence first."""
        with self._database.transaction() as connection:
            found = connection.execute(
                "SELECT divergence, text FROM candidates WHERE model = ? "
                "ORDER BY divergence DESC, response",
                (model,),
            ).fetchall()
        return [FoundCandidate(*row) for row in found]

    def models(self) -> list[str]:
        """The models that measured something, the last one first."""
        with self._database.transaction() as connection:
            found = connection.execute(
                "SELECT model FROM drops GROUP BY model ORDER BY max(measured_at) DESC"
            ).fetchall()
        return [model for (model,) in found]

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
