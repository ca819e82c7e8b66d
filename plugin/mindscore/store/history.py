"""The history of a namespace: runs, each memory's scores and weights, the matrix's cells."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import astuple, dataclass

from sqlalchemy import Connection, insert

from mindscore.store.database import NamespaceTables
from mindscore.store.records import checked, intact, row_id
from mindscore.store.schema import candidates, cells, memories, runs, weights


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of a flow at its end.

    ``started_at`` is in seconds since the epoch, ``seconds`` its duration. ``found`` counts the
    memories scored, or the candidates; ``considered`` all memories, or responses.
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
    """One cell of the matrix: the divergence of a response without a memory, in nats.

    ``noise`` is as in ``ResponseDivergence``.
    """

    key: str
    node_id: str
    entry_idx: int
    divergence: float
    signed: float
    noise: float | None
    scored_at: float


class History(NamespaceTables):
    """The history of one namespace. Every method is one transaction; may raise ``StoreError``."""

    async def record_run(self, run: RunRecord) -> None:
        """Keep a run, and remove those older than ``retention_days``."""
        names = RunRecord.__slots__
        row = dict(zip(names, astuple(run), strict=True))

        def work(connection: Connection) -> None:
            self._prune(connection, runs.c.started_at, now=run.started_at)
            connection.execute(insert(runs), [{"namespace": self._namespace, **row}])

        await self._database.write(work)

    async def runs(self, limit: int = 100) -> list[RunRecord]:
        """List the last runs, the newest first."""
        columns = [runs.c[name] for name in RunRecord.__slots__]
        query = self._mine(runs, *columns).order_by(runs.c.started_at.desc(), runs.c.id.desc())
        return [RunRecord(*row) for row in await self._all(query.limit(limit))]

    async def weights(self) -> dict[tuple[str, str], list[Point]]:
        """Return every memory's points, by key and model, the oldest first."""
        table = weights.c
        columns = (table.key, table.model, table.scored_at, table.score, table.weight)
        query = self._mine(weights, *columns).order_by(table.scored_at)
        found: dict[tuple[str, str], list[Point]] = defaultdict(list)
        for key, model, *point in await self._all(query):
            found[key, model].append(Point(*point))
        return dict(found)

    async def cells(self, model: str, conversation: str | None = None) -> list[Cell]:
        """List the cells of the matrix that ``model`` measured, by response and key.

        With a ``conversation``, only its cells. Of a memory that was rewritten, the latest count.
        """
        columns = [cells.c[name] for name in Cell.__slots__]
        query = self._mine(cells, row_id(cells), *columns).where(cells.c.model == model)
        if conversation is not None:
            query = query.where(cells.c.conversation == conversation)
        query = query.order_by(cells.c.entry_idx, cells.c.key, cells.c.scored_at)
        made = checked(Cell)

        def work(connection: Connection) -> list[Cell]:
            found = intact(cells, connection.execute(query), made)
            return list({(it.key, it.node_id): it for it in found}.values())

        return await self._database.read(work)

    async def models(self) -> list[str]:
        """List the models that anything is kept of, in order."""

        def work(connection: Connection) -> list[str]:
            found: set[str] = set()
            for table in (memories, cells, candidates, runs):
                query = self._mine(table, table.c.model).distinct()
                found.update(connection.execute(query).scalars())
            return sorted(found)

        return await self._database.read(work)
