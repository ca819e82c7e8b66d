"""An operator's decisions about candidates."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, delete, insert, select

from mindhooks import FinetuneCandidate
from mindscore._util.errors import StoreError, UsageError
from mindscore._util.text import moment_ago
from mindscore.measure.prompts import response_hash
from mindscore.store.namespace import NamespaceTables
from mindscore.store.records import decode_candidate, intact, row_id
from mindscore.store.schema import candidates, reviews, trained
from mindscore.store.store import TrainedMarks, read_marks

T = TypeVar("T")


class ConflictError(StoreError):
    """The candidate has changed since it was shown; the text says how."""


MOST_REJECTED = 10
"""Rejected candidates of a model that lists have, the latest; older ones fade from them."""

Decision = Literal["accepted", "rejected"]
Answer = Literal["response", "alternate", "edited"]


@dataclass(frozen=True, slots=True)
class CandidateName:
    """A candidate's name: its model, the response's timestamp and the hash of its ids."""

    model: str
    timestamp_ns: int
    continuation_hash: str


@dataclass(frozen=True, slots=True)
class Review:
    """A decision, and the answer to train on; ``decided_at`` is in seconds since the epoch.

    ``text`` and ``ids`` are those of an ``"edited"`` answer; its ids end as the response's do. An
    ``"alternate"`` gets the candidate's when it is kept; one that comes with ids is kept only if
    the candidate still has the same, since a candidate found again may have another alternate.
    """

    decision: Decision
    answer: Answer
    decided_at: float
    text: str | None = None
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A candidate, its review, and the sinks that have accepted it.

    ``found_at`` is in seconds since the epoch. A sink ``""``: it was imported as trained.
    ``conversation`` is the id of the one it was found in, empty where that is not known.
    """

    candidate: FinetuneCandidate
    model: str
    found_at: float
    review: Review | None
    sinks: tuple[str, ...]
    conversation: str = ""

    @property
    def name(self) -> CandidateName:
        """The candidate's name."""
        return name_of(self.candidate, self.model)

    @property
    def verdict(self) -> str:
        """The decision, its time and the sinks in words, or that there is none."""
        words = "not decided"
        if self.review is not None:
            answer = "" if self.review.answer == "response" else f" ({self.review.answer})"
            when = moment_ago(self.review.decided_at)
            words = f"{self.review.decision}{answer} {when}"
        sinks = ", ".join(it or "imported as trained" for it in self.sinks)
        return f"{words}; trained: {sinks}" if sinks else words

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The token ids of the answer to train on: the response's unless another was chosen."""
        chosen = self.review
        if chosen is not None and chosen.ids is not None:
            return chosen.ids
        return self.candidate.continuation_ids


def name_of(candidate: FinetuneCandidate, model: str) -> CandidateName:
    """Return the name of a candidate that ``model`` found."""
    hash_ = response_hash(candidate.continuation_ids)
    return CandidateName(model, candidate.timestamp_ns, hash_)


@dataclass(frozen=True, slots=True)
class Unlisted:
    """The candidates of a model that lists leave out: those trained on, and ``faded`` ones."""

    model: str
    faded: frozenset[CandidateName]
    trained: TrainedMarks

    def has(self, candidate: FinetuneCandidate) -> bool:
        """Return whether lists leave out ``candidate``."""
        name = name_of(candidate, self.model)
        marks = self.trained.sinks(name.timestamp_ns, name.continuation_hash)
        return bool(marks) or name in self.faded


@dataclass(frozen=True, slots=True)
class Listed:
    """A candidate in a list: without its prompts, which are long."""

    name: CandidateName
    divergence: float
    response_text: str
    prior_context: str
    review: Review | None
    sinks: tuple[str, ...]


class _ShownText(msgspec.Struct):
    """The part of a kept candidate that a list shows."""

    response_text: str
    prior_context: str


class _Decided(msgspec.Struct):
    """The part of a kept review that says how it ended."""

    decision: Decision


class _Row(NamedTuple):
    name: CandidateName
    divergence: float
    candidate: str
    found_at: float
    conversation: str
    review: Review | None
    sinks: tuple[str, ...]


class Reviews(NamespaceTables):
    """The reviews of one namespace. Every method is one transaction; may raise ``StoreError``."""

    async def queue(
        self, model: str | None = None, conversation: str | None = None
    ) -> list[Reviewed]:
        """List the candidates of ``model``, or of all, the largest divergence first.

        Only those of ``conversation``, where it is given.
        """
        return await self._database.read(
            lambda connection: list(self._rows(connection, _of(model), _whole, conversation))
        )

    async def listed(self, model: str) -> list[Listed]:
        """List the candidates of ``model`` in short, in the order of ``queue``.

        Of the rejected ones only the ``MOST_REJECTED`` latest: the others are kept, and not listed.
        """

        def work(connection: Connection) -> list[Listed]:
            faded = self._faded(connection, model)
            found = self._rows(connection, _of(model), _listed)
            return [it for it in found if it.name not in faded]

        return await self._database.read(work)

    async def unlisted(self, model: str) -> Unlisted:
        """Return the candidates of ``model`` that a host's screen does not show (any more)."""

        def work(connection: Connection) -> Unlisted:
            marks = read_marks(connection, self._in_namespace(trained))
            return Unlisted(model, self._faded(connection, model), marks)

        return await self._database.read(work)

    async def decisions(self, model: str) -> dict[str, str | None]:
        """Return what was decided about each response that ``model`` found, by its ids' hash.

        It is a ``Decision``, or ``"waiting"``; ``None``: lists leave it out, as it was trained on
        or faded. Of several responses with the same ids, one that waits counts.
        """

        def work(connection: Connection) -> dict[str, str | None]:
            faded = self._faded(connection, model)
            found: dict[str, str | None] = {}
            for it in self._rows(connection, _of(model), _listed):
                hash_, decided = it.name.continuation_hash, None
                if not it.sinks and it.name not in faded:
                    decided = it.review.decision if it.review else "waiting"
                if decided == "waiting" or found.get(hash_) is None:
                    found[hash_] = decided
            return found

        return await self._database.read(work)

    async def one(self, name: CandidateName) -> Reviewed | None:
        """Return a candidate whole; ``None`` if it is not kept."""
        return await self._database.read(lambda connection: self._one(connection, name))

    async def decide(self, name: CandidateName, review: Review) -> None:
        """Keep a decision about a candidate that waits for one.

        Raises:
            ConflictError: the candidate is not kept any more, was decided on or accepted by a sink
                meanwhile, or was found again with another alternate than the chosen one.
            StoreError: the store cannot be written.
            UsageError: it has no alternate, or one without ids, and that is the chosen answer.
        """

        def work(connection: Connection) -> None:
            kept = self._one(connection, name)
            if kept is None:
                raise ConflictError("this candidate is not kept any more: score again to find it")
            if kept.sinks:
                raise ConflictError(
                    "this candidate was trained on already: there is nothing to decide"
                )
            if kept.review is not None:
                raise ConflictError(
                    f"this candidate was {kept.review.decision} meanwhile: undo that to "
                    "decide again"
                )
            row = {
                "namespace": self._namespace,
                **_columns(name),
                "review": msgspec.json.encode(_with_answer(review, kept.candidate)).decode(),
                "decided_at": review.decided_at,
            }
            connection.execute(insert(reviews), [row])

        await self._database.write(work)

    async def undo(self, name: CandidateName, decided_at: float) -> None:
        """Undo the decision on a candidate that was made at ``decided_at``.

        Raises:
            ConflictError: that is not the last decision, or a sink has accepted the candidate.
            StoreError: the store cannot be written.
        """

        def work(connection: Connection) -> None:
            kept = self._one(connection, name)
            if kept is not None and kept.sinks:
                raise ConflictError(
                    "this candidate was trained on already: its decision cannot be undone"
                )
            if kept is None or kept.review is None or kept.review.decided_at != decided_at:
                raise ConflictError(
                    "this decision was undone meanwhile, or its candidate is not kept any more: "
                    "look again"
                )
            of_name = self._where(reviews, _columns(name))
            last = select(reviews.c.id).where(*of_name).order_by(reviews.c.id.desc()).limit(1)
            connection.execute(delete(reviews).where(reviews.c.id == last.scalar_subquery()))

        await self._database.write(work)

    def _faded(self, connection: Connection, model: str) -> frozenset[CandidateName]:
        """Return the candidates whose rejection has ``MOST_REJECTED`` later ones after it."""
        columns = [reviews.c[it] for it in CandidateName.__slots__]
        query = select(row_id(reviews), *columns, reviews.c.review)
        query = query.where(*self._where(reviews, _of(model)))
        last: dict[CandidateName, Decision] = {}

        def take(*columns: Any) -> None:
            *name, text = columns
            decided = msgspec.json.decode(text, type=_Decided)
            last.setdefault(CandidateName(*name), decided.decision)

        newest_first = connection.execute(query.order_by(reviews.c.id.desc()))
        deque(intact(reviews, newest_first, take), 0)
        rejected = [name for name, decision in last.items() if decision == "rejected"]
        return frozenset(rejected[MOST_REJECTED:])

    def _one(self, connection: Connection, name: CandidateName) -> Reviewed | None:
        return next(self._rows(connection, _columns(name), _whole), None)

    def _rows(
        self,
        connection: Connection,
        wanted: Mapping[str, Any],
        make: Callable[[_Row], T],
        conversation: str | None = None,
    ) -> Iterator[T]:
        """Yield ``make`` of the candidates whose columns equal ``wanted``, reviews and marks too.

        A damaged candidate is left out, and so is one whose review is: it is not known whether it
        may be trained on.
        """
        columns = [reviews.c[it] for it in CandidateName.__slots__]
        query = select(row_id(reviews), *columns, reviews.c.review)
        query = query.where(*self._where(reviews, wanted))
        decided: dict[CandidateName, Review | None] = {}

        def take(*columns: Any) -> None:
            *name, text = columns
            decided[CandidateName(*name)] = None
            decided[CandidateName(*name)] = msgspec.json.decode(text, type=Review)

        deque(intact(reviews, connection.execute(query.order_by(reviews.c.id)), take), 0)
        # Marks know no models, and imported ones no hashes.
        stamp = {key: value for key, value in wanted.items() if key == "timestamp_ns"}
        marks = read_marks(connection, *self._where(trained, stamp))
        table = candidates.c
        columns = [table[it] for it in CandidateName.__slots__]
        columns += [table.divergence, table.candidate, table.found_at, table.conversation]
        kept = select(row_id(candidates), *columns)
        kept = kept.where(*self._where(candidates, wanted))
        if conversation is not None:
            kept = kept.where(table.conversation == conversation)
        kept = kept.order_by(table.divergence.desc(), table.timestamp_ns, table.model)

        def made(model: str, stamp: int, hash_: str, *rest: Any) -> T | None:
            name = msgspec.convert((model, stamp, hash_), type=tuple[str, int, str])
            review = decided.get(CandidateName(*name))
            if review is None and CandidateName(*name) in decided:
                return None
            sinks = tuple(sorted(marks.sinks(stamp, hash_)))
            facts = msgspec.convert(rest, type=tuple[float, str, float, str])
            return make(_Row(CandidateName(*name), *facts, review, sinks))

        yield from intact(candidates, connection.execute(kept), made)

    def _where(self, table: Table, wanted: Mapping[str, Any]) -> Sequence[ColumnElement[bool]]:
        every = {"namespace": self._namespace, **wanted}
        return [table.c[column] == value for column, value in every.items()]


def _whole(row: _Row) -> Reviewed:
    candidate = decode_candidate(row.candidate)
    about = (row.name.model, row.found_at, row.review, row.sinks, row.conversation)
    return Reviewed(candidate, *about)


def _listed(row: _Row) -> Listed:
    said = msgspec.json.decode(row.candidate, type=_ShownText)
    about = (said.response_text, said.prior_context)
    return Listed(row.name, row.divergence, *about, row.review, row.sinks)


def _with_answer(review: Review, candidate: FinetuneCandidate) -> Review:
    if review.answer == "alternate":
        if review.ids is not None and review.ids != candidate.alternate_ids:
            raise ConflictError("this candidate was found again with another answer: look again")
        ids = candidate.alternate_ids
        review = replace(review, text=candidate.alternate_text, ids=ids)
    if review.answer != "response" and review.ids is None:
        raise UsageError(
            "the token ids of that answer are unknown: it was not generated, or its server "
            "gave only the text; choose another, or edit one"
        )
    return review


def _of(model: str | None) -> dict[str, Any]:
    return {} if model is None else {"model": model}


def _columns(name: CandidateName) -> dict[str, Any]:
    return {column: getattr(name, column) for column in CandidateName.__slots__}
