"""What an operator decided about candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from mindhooks import FinetuneCandidate
from mindscore.config import StoreSettings
from mindscore.errors import StoreError, UsageError
from mindscore.fingerprint import response_hash
from mindscore.store.database import Database
from mindscore.store.schema import candidates, reviews, trained
from mindscore.store.store import TrainedMarks, marks_of

Decision = Literal["accepted", "rejected"]
Answer = Literal["response", "alternate", "edited"]


@dataclass(frozen=True, slots=True)
class CandidateName:
    """Which candidate: the model that found it, the response's timestamp and its ids' hash."""

    model: str
    timestamp_ns: int
    continuation_hash: str


@dataclass(frozen=True, slots=True)
class Review:
    """A decision, and the answer to train on; ``decided_at`` is in seconds since the epoch.

    ``text`` and ``ids`` are those of an ``"edited"`` answer; its ids end as the response's do. An
    ``"alternate"`` gets its own when it is kept: a candidate found again may have another.
    """

    decision: Decision
    answer: Answer
    decided_at: float
    text: str | None = None
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A candidate, what was decided about it, and which sinks have accepted it.

    ``found_at`` is in seconds since the epoch. A sink ``""``: it was imported as trained.
    """

    candidate: FinetuneCandidate
    model: str
    found_at: float
    review: Review | None
    sinks: tuple[str, ...]

    @property
    def name(self) -> CandidateName:
        """Which candidate it is."""
        found = self.candidate
        hash_ = response_hash(found.continuation_ids)
        return CandidateName(self.model, found.timestamp_ns, hash_)

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The answer to train on: the response's ids where nobody chose another."""
        chosen = self.review
        if chosen is not None and chosen.ids is not None:
            return chosen.ids
        return self.candidate.continuation_ids


class Reviews:
    """The reviews of one namespace. Every method is one transaction; may raise ``StoreError``."""

    def __init__(self, settings: StoreSettings) -> None:
        self._database = Database(settings.url)
        self._namespace = settings.namespace

    async def queue(self, model: str | None = None) -> list[Reviewed]:
        """The candidates that are kept, of ``model`` or of all, the largest divergence first."""
        table = candidates.c
        query = select(table.model, table.continuation_hash, table.found_at, table.candidate)
        query = query.where(table.namespace == self._namespace)
        if model is not None:
            query = query.where(table.model == model)
        query = query.order_by(table.divergence.desc(), table.timestamp_ns, table.model)

        def work(connection: Connection) -> list[Reviewed]:
            decided = self._decided(connection)
            marks = self._marks(connection)
            found = []
            for its_model, hash_, found_at, text in connection.execute(query):
                candidate = msgspec.json.decode(text, type=FinetuneCandidate)
                name = CandidateName(its_model, candidate.timestamp_ns, hash_)
                sinks = tuple(sorted(marks.sinks(candidate.timestamp_ns, hash_)))
                found.append(Reviewed(candidate, its_model, found_at, decided.get(name), sinks))
            return found

        return await self._database.read(work)

    async def decide(self, name: CandidateName, review: Review) -> None:
        """Keep a decision, which replaces an earlier one until it is taken back.

        Raises:
            StoreError: the candidate is not kept any more, or was accepted by a sink meanwhile.
            UsageError: it has no alternate, or one without ids, and that is the chosen answer.
        """

        def work(connection: Connection) -> None:
            kept = select(candidates.c.candidate).where(*self._of(candidates, name))
            text = connection.execute(kept).scalar_one_or_none()
            if text is None:
                raise StoreError("this candidate is not kept any more: find it again by scoring")
            its = msgspec.json.decode(text, type=FinetuneCandidate)
            whole = review
            if review.answer == "alternate":
                whole = replace(review, text=its.alternate_text, ids=its.alternate_ids)
            if whole.answer != "response" and whole.ids is None:
                raise UsageError(
                    "the token ids of that answer are not known: it was not generated, or its "
                    "server gave the text only; choose another, or edit one"
                )
            if self._marks(connection).sinks(name.timestamp_ns, name.continuation_hash):
                raise StoreError("this candidate is trained on already: nothing is left to decide")
            row = {
                "namespace": self._namespace,
                **_columns(name),
                "review": msgspec.json.encode(whole).decode(),
                "decided_at": review.decided_at,
            }
            connection.execute(insert(reviews), [row])

        await self._database.write(work)

    async def undo(self, name: CandidateName) -> bool:
        """Take back the last decision on a candidate; whether there was one."""
        of = self._of(reviews, name)
        last = select(func.max(reviews.c.id)).where(*of).scalar_subquery()

        def work(connection: Connection) -> bool:
            return connection.execute(delete(reviews).where(reviews.c.id == last)).rowcount > 0

        return await self._database.write(work)

    def _decided(self, connection: Connection) -> dict[CandidateName, Review]:
        columns = [reviews.c[name] for name in CandidateName.__slots__]
        query = select(*columns, reviews.c.review).order_by(reviews.c.id)
        found = connection.execute(query.where(reviews.c.namespace == self._namespace))
        return {
            CandidateName(*name): msgspec.json.decode(review, type=Review)
            for *name, review in found
        }

    def _marks(self, connection: Connection) -> TrainedMarks:
        columns = (trained.c.timestamp_ns, trained.c.continuation_hash, trained.c.sink)
        mine = trained.c.namespace == self._namespace
        return marks_of(connection.execute(select(*columns).where(mine)))

    def _of(self, table: Any, name: CandidateName) -> Sequence[ColumnElement[bool]]:
        wanted = {"namespace": self._namespace, **_columns(name)}
        return [table.c[column] == value for column, value in wanted.items()]


def _columns(name: CandidateName) -> dict[str, Any]:
    return {column: getattr(name, column) for column in CandidateName.__slots__}
