"""What was found over time: runs, each memory's scores and weights, and the matrix's cells."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import astuple, dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from mindscore.config.settings import StoreSettings
from mindscore.store.database import Database
from mindscore.store.schema import candidates, cells, memories, runs, weights
from mindscore.store.store import DAY_S


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of a flow at its end.

    ``started_at`` is in seconds since the epoch, ``seconds`` how long it took. ``found`` counts
    the memories scored, or the candidates; ``considered`` the memories, or responses, there were.
    """

    command: str
    model: str
    started_at: float
    seconds: float
    calls: int
    prompt_tokens: int
    computed_tokens: int | None
    found: int
    considered: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Point:
    """A memory's score and the weight that it led to, in nats, and when, since the epoch."""

    scored_at: float
    score: float
    weight: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the matrix: what a memory did to a response, in nats.

    ``noise`` is as in ``ResponseDivergence``.
    """

    key: str
    node_id: str
    entry_idx: int
    divergence: float
    signed: float
    noise: float | None
    scored_at: float


class History:
    """The history of one namespace. Every method is one transaction; may raise ``StoreError``."""

    def __init__(self, settings: StoreSettings) -> None:
        self._database = Database(settings.url)
        self._namespace = settings.namespace
        self._retention_s = settings.retention_days * DAY_S

    async def record_run(self, run: RunRecord) -> None:
        """Keep a run; those that are older than ``retention_days`` go."""
        names = RunRecord.__slots__
        row = dict(zip(names, astuple(run), strict=True))

        def work(connection: Connection) -> None:
            if self._retention_s:
                oldest = run.started_at - self._retention_s
                mine = runs.c.namespace == self._namespace
                connection.execute(delete(runs).where(mine, runs.c.started_at < oldest))
            connection.execute(insert(runs), [{"namespace": self._namespace, **row}])

        await self._database.write(work)

    async def runs(self, limit: int = 100) -> list[RunRecord]:
        """The last runs, the newest first."""
        columns = [runs.c[name] for name in RunRecord.__slots__]
        query = select(*columns).where(runs.c.namespace == self._namespace)
        query = query.order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
        return [RunRecord(*row) for row in await self._all(query)]

    async def weights(self) -> dict[tuple[str, str], list[Point]]:
        """Every memory's points, by key and model, the oldest first."""
        table = weights.c
        query = select(table.key, table.model, table.scored_at, table.score, table.weight)
        query = query.where(table.namespace == self._namespace).order_by(table.scored_at)
        found: dict[tuple[str, str], list[Point]] = defaultdict(list)
        for key, model, *point in await self._all(query):
            found[key, model].append(Point(*point))
        return dict(found)

    async def cells(self, model: str) -> list[Cell]:
        """The cells of the matrix that ``model`` measured, by response and key."""
        columns = [cells.c[name] for name in Cell.__slots__]
        mine = (cells.c.namespace == self._namespace, cells.c.model == model)
        query = select(*columns).where(*mine).order_by(cells.c.entry_idx, cells.c.key)
        return [Cell(*row) for row in await self._all(query)]

    async def models(self) -> list[str]:
        """The models that anything is kept of, in order."""

        def work(connection: Connection) -> list[str]:
            found: set[str] = set()
            for table in (memories, cells, candidates, runs):
                query = select(table.c.model).where(table.c.namespace == self._namespace)
                found.update(connection.execute(query.distinct()).scalars())
            return sorted(found)

        return await self._database.read(work)

    async def _all(self, query: Any) -> Any:
        return await self._database.read(lambda connection: connection.execute(query).all())
