"""The history of a namespace: runs, each memory's scores and weights, the matrix's cells."""

from __future__ import annotations

from collections.abc import Sequence
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

    ``noise`` is as in ``ResponseDivergence``. ``conversation`` is ``Context.id``; empty: not known,
    as of a cell that an older version measured.
    """

    key: str
    node_id: str
    entry_idx: int
    divergence: float
    signed: float
    noise: float | None
    scored_at: float
    conversation: str = ""


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
        query = self._select(runs, *columns).order_by(runs.c.started_at.desc(), runs.c.id.desc())
        return [RunRecord(*row) for row in await self._all(query.limit(limit))]

    async def points(self, model: str, keys: Sequence[str], limit: int) -> dict[str, list[Point]]:
        """Return the last ``limit`` points of each of ``keys``, the oldest first."""
        columns = [weights.c[name] for name in Point.__slots__]
        query = self._select(weights, row_id(weights), *columns).where(weights.c.model == model)
        query = query.order_by(weights.c.scored_at.desc()).limit(limit)
        made = checked(Point)

        def work(connection: Connection) -> dict[str, list[Point]]:
            found = {}
            for key in keys:
                its = connection.execute(query.where(weights.c.key == key))
                found[key] = list(intact(weights, its, made))[::-1]
            return found

        return await self._database.read(work)

    async def cells(self, model: str, limit: int, keys: Sequence[str] | None = None) -> list[Cell]:
        """List the ``limit`` cells that ``model`` measured last, of ``keys`` or of all memories.

        Of a response that was measured with several texts of a memory, the latest counts.
        """
        columns = [cells.c[name] for name in Cell.__slots__]
        query = self._select(cells, row_id(cells), *columns).where(cells.c.model == model)
        if keys is not None:
            query = query.where(cells.c.key.in_(keys))
        query = query.order_by(cells.c.scored_at.desc()).limit(limit)
        made = checked(Cell)

        def work(connection: Connection) -> list[Cell]:
            latest: dict[tuple[str, str, str], Cell] = {}
            for it in intact(cells, connection.execute(query), made):
                latest.setdefault((it.key, it.conversation, it.node_id), it)
            return list(latest.values())

        return await self._database.read(work)

    async def models(self) -> list[str]:
        """List the models that anything is kept of, in order."""

        def work(connection: Connection) -> list[str]:
            found: set[str] = set()
            for table in (memories, cells, candidates, runs):
                query = self._select(table, table.c.model).distinct()
                found.update(connection.execute(query).scalars())
            return sorted(found)

        return await self._database.read(work)
