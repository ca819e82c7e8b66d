"""The history of a namespace: runs, each memory's scores and weights, the matrix's cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, func, insert, select

from mindscore.store.namespace import DAY_S, NamespaceTables
from mindscore.store.pages import Mode
from mindscore.store.records import checked, intact, row_id
from mindscore.store.schema import (
    candidates,
    cells,
    conversation_scores,
    memories,
    runs,
    speeds,
    weights,
)
from mindscore.store.transactions import replacing, upsert


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of a flow at its end.

    ``started_at`` is in seconds since the epoch, ``seconds`` its duration. ``found`` counts the
    memories scored, or the candidates; ``considered`` all memories, or responses. ``threshold``
    and ``max_divergence`` are those of a search for candidates, in nats. ``sent_tokens`` are all
    that a server may have read or generated: those of requests that were made again, of its
    self-test and of alternates, too; ``None``: not known.
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
    threshold: float | None = None
    max_divergence: float | None = None
    sent_tokens: int | None = None


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
    as of a cell that an older version measured. ``text_hash`` is of the memory's text; empty: not
    known. ``mode`` is ``"full"``, ``"estimate"`` where a screen has estimated the cell, or
    ``"incremental"`` where it is of a score within a window.
    """

    key: str
    node_id: str
    entry_idx: int
    divergence: float
    signed: float
    noise: float | None
    scored_at: float
    conversation: str = ""
    text_hash: str = ""
    mode: Mode = "full"


@dataclass(frozen=True, slots=True)
class KnownConversation:
    """The counts of what is kept of one conversation by one model.

    ``id`` is ``Context.id``; empty: not known. ``scores`` counts memories with an incremental
    score; ``last`` is when the newest of all was found, in seconds since the epoch.
    """

    id: str
    model: str
    scores: int
    cells: int
    candidates: int
    last: float


HOUR_S = 3600.0

EARLIER = 0.5
"""Weight of earlier runs in a speed, once a new one is measured."""


@dataclass(frozen=True, slots=True)
class Speed:
    """The tokens that a model has run, and the seconds they took.

    ``server`` is as ``ServerSettings.place``, ``device`` as a scorer's capability. ``scoring_s`` is
    for ``prompt_tokens`` sent and ``computed_tokens``, ``None`` where the server does not say.
    ``loading_s`` is ``None`` where nothing was loaded.
    """

    server: str
    model: str
    device: str
    prompt_tokens: float
    computed_tokens: float | None
    scoring_s: float
    generated_tokens: float
    generating_s: float
    loading_s: float | None
    measured_at: float

    def scoring(self, prompt_tokens: int, computed_tokens: int | None) -> float | None:
        """Return the seconds for prompts, or ``None`` if no speed of scoring is known.

        Tokens that are sent count where those computed are not known.
        """
        if computed_tokens is None or self.computed_tokens is None:
            return self._seconds(prompt_tokens, self.prompt_tokens, self.scoring_s)
        return self._seconds(computed_tokens, self.computed_tokens, self.scoring_s)

    def generating(self, tokens: int) -> float | None:
        """Return the seconds to generate ``tokens``, or ``None`` if that speed is not known."""
        return self._seconds(tokens, self.generated_tokens, self.generating_s)

    @staticmethod
    def _seconds(tokens: int, of: float, took: float) -> float | None:
        return tokens * took / of if of > 0 else None

    def after(self, earlier: Speed) -> Speed:
        """Return what is known once this is measured too; long runs count more than short ones."""
        found = self
        if earlier.loading_s is not None and self.loading_s is None:
            found = replace(found, loading_s=earlier.loading_s)
        if not self.generating_s:
            found = replace(
                found,
                generated_tokens=earlier.generated_tokens,
                generating_s=earlier.generating_s,
            )
        else:
            found = replace(
                found,
                generated_tokens=EARLIER * earlier.generated_tokens + self.generated_tokens,
                generating_s=EARLIER * earlier.generating_s + self.generating_s,
            )
        before, now = earlier.computed_tokens, self.computed_tokens
        if (before is None) != (now is None):
            # A server that is another one now.
            return found
        return replace(
            found,
            prompt_tokens=EARLIER * earlier.prompt_tokens + self.prompt_tokens,
            computed_tokens=None if before is None or now is None else EARLIER * before + now,
            scoring_s=EARLIER * earlier.scoring_s + self.scoring_s,
        )


class History(NamespaceTables):
    """The history of one namespace. Every method is one transaction; may raise ``StoreError``."""

    async def speed(self, server: str, model: str, device: str) -> Speed | None:
        """Return the speed of a model, of whatever namespace, or ``None`` if it is not known."""
        return await self._database.read(lambda it: _read_speed(it, server, model, device))

    async def record_speed(self, speed: Speed) -> None:
        """Keep what was measured beside what earlier runs have."""

        def work(connection: Connection) -> None:
            earlier = _read_speed(connection, speed.server, speed.model, speed.device)
            known = speed if earlier is None else speed.after(earlier)
            upsert(connection, speeds, [asdict(known)], replacing(speeds))

        await self._database.write(work)

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

    async def last_run(self, command: str, model: str) -> RunRecord | None:
        """Return the last run of ``command`` by ``model``, or ``None`` if none is kept."""
        columns = [runs.c[name] for name in RunRecord.__slots__]
        query = self._select(runs, *columns).where(runs.c.command == command, runs.c.model == model)
        query = query.order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(1)
        found = await self._all(query)
        return RunRecord(*found[0]) if found else None

    async def tokens_sent(self, now: float) -> list[Sent]:
        """Return what each run of the last hour has sent; ``now`` is in seconds since the epoch."""
        mine = self._in_namespace(runs)
        return await self._database.read(lambda it: sent_within_hour(it, mine, now))

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

    async def conversations(self) -> list[KnownConversation]:
        """List the conversations that anything is kept of, by model; the newest one first."""
        sources = (
            (conversation_scores, conversation_scores.c.key, conversation_scores.c.scored_at),
            (cells, cells.c.node_id, cells.c.scored_at),
            (candidates, candidates.c.timestamp_ns, candidates.c.found_at),
        )

        def work(connection: Connection) -> list[KnownConversation]:
            counts: dict[tuple[str, str], list[int]] = {}
            last: dict[tuple[str, str], float] = {}
            for at, (table, column, when) in enumerate(sources):
                name = (table.c.conversation, table.c.model)
                counted = func.count(column.distinct() if at == 0 else column)
                query = self._select(table, *name, counted, func.max(when)).group_by(*name)
                if table is cells:
                    query = query.where(cells.c.mode == "full")
                for id_, model, count, newest in connection.execute(query):
                    # A damaged row may hold anything; store check names it.
                    if (
                        isinstance(id_, str)
                        and isinstance(model, str)
                        and isinstance(newest, float)
                    ):
                        counts.setdefault((id_, model), [0, 0, 0])[at] = count
                        last[id_, model] = max(newest, last.get((id_, model), newest))
            by_id: dict[str, float] = {}
            for (id_, _), newest in last.items():
                by_id[id_] = max(newest, by_id.get(id_, newest))
            ordered = sorted(counts, key=lambda name: (-by_id[name[0]], *name))
            return [
                KnownConversation(id_, model, scores, measured, found, last[id_, model])
                for id_, model in ordered
                for scores, measured, found in [counts[id_, model]]
            ]

        return await self._database.read(work)

    async def cells(
        self,
        model: str,
        limit: int | None,
        keys: Sequence[str] | None = None,
        *,
        conversation: str | None = None,
        texts: Mapping[str, str] | None = None,
        modes: Sequence[Mode] = ("full", "estimate"),
    ) -> list[Cell]:
        """List the ``limit`` cells of matrices that ``model`` measured last, of ``keys`` or of all.

        Only those in ``conversation``, and of ``texts``, ``{key: text hash}``, where they are
        given. Of a response that was measured with several texts of a memory, the latest counts,
        and an estimate only where nothing was measured.
        """
        columns = [cells.c[name] for name in Cell.__slots__]
        query = self._select(cells, row_id(cells), *columns).where(
            cells.c.model == model, cells.c.mode.in_(modes)
        )
        is_one = keys is not None and len(keys) == 1
        if keys is not None:
            query = query.where(cells.c.key.in_(keys))
        if conversation is not None:
            query = query.where(cells.c.conversation == conversation)
        elif is_one:
            its = self._distinct(cells.c.conversation, cells.c.model == model)
            query = query.where(cells.c.conversation.in_(its))
        # The cells of one conversation or memory are few: they are found by name, and then ordered.
        # By the column itself, SQLite goes through all there are by their age.
        is_few = is_one or conversation is not None
        when = func.coalesce(cells.c.scored_at, 0.0) if is_few else cells.c.scored_at
        query = query.order_by(when.desc()).limit(limit)
        made = checked(Cell)

        def work(connection: Connection) -> list[Cell]:
            latest: dict[tuple[str, str, str], Cell] = {}
            for it in intact(cells, connection.execute(query), made):
                if texts is None or it.text_hash == texts.get(it.key):
                    name = (it.key, it.conversation, it.node_id)
                    if it.mode == "full" and name in latest and latest[name].mode == "estimate":
                        latest[name] = it
                    latest.setdefault(name, it)
            return list(latest.values())

        return await self._database.read(work)

    async def models(self) -> list[str]:
        """List the models that anything is kept of, in order."""

        def work(connection: Connection) -> list[str]:
            found: set[str] = set()
            for table in (memories, candidates, runs):
                query = self._select(table, table.c.model).distinct()
                found.update(connection.execute(query).scalars())
            found.update(connection.execute(self._distinct(cells.c.model)).scalars())
            return sorted(found)

        return await self._database.read(work)

    def _distinct(self, column: Column[Any], *where: ColumnElement[bool]) -> Select[Any]:
        """Return the query for the distinct values of a column, which an index begins with.

        The index is asked for one after the other: ``DISTINCT`` would read all of it.
        """
        least = self._select(column.table, func.min(column)).where(*where)
        found = least.cte(recursive=True)
        following = select(least.where(column > found.c[0]).scalar_subquery())
        found = found.union_all(following.where(found.c[0].is_not(None)))
        return select(found.c[0]).where(found.c[0].is_not(None))


Sent = tuple[float, int]
"""The moment at which a run began, in seconds since the epoch, and the tokens that it has sent."""


def sent_within_hour(connection: Connection, mine: ColumnElement[bool], now: float) -> list[Sent]:
    """Return what the runs of the last hour have sent, of those that are ``mine``.

    A run counts until an hour after its end. By a clock that was set back since, one may seem to
    begin within the next hour, and counts, too; what seems to be later still does not.
    """
    began, end = runs.c.started_at, runs.c.started_at + runs.c.seconds
    tokens = func.coalesce(runs.c.sent_tokens, runs.c.prompt_tokens)
    query = select(began, tokens).where(
        mine, began.between(now - DAY_S, now + HOUR_S), end > now - HOUR_S
    )
    # A damaged row may hold anything.
    found = [(it[0], it[1]) for it in connection.execute(query)]
    return [(began, sent) for began, sent in found if isinstance(sent, int) and sent >= 0]


def _read_speed(connection: Connection, server: str, model: str, device: str) -> Speed | None:
    query = select(row_id(speeds), *(speeds.c[name] for name in Speed.__slots__)).where(
        speeds.c.server == server, speeds.c.model == model, speeds.c.device == device
    )
    return next(intact(speeds, connection.execute(query), checked(Speed)), None)
