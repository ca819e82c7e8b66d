"""Candidates and trained marks of a namespace, beside its scores."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, delete, exists, select

from mindhooks import FinetuneCandidate
from mindscore._util.errors import StoreError, UsageError
from mindscore._util.files import write_files
from mindscore._util.text import harmless_json
from mindscore.measure.prompts import response_hash
from mindscore.store.archive import ArchiveTables
from mindscore.store.evidence import EvidenceTables
from mindscore.store.matrix_notes import MatrixNotes
from mindscore.store.matrix_rows import MatrixRows
from mindscore.store.records import check_candidate, decode_candidate, intact, row_id
from mindscore.store.schema import candidates, reviews, sends, trained
from mindscore.store.scores import Scores
from mindscore.store.transactions import replacing, upsert

FRESH_S = 3600.0
"""Seconds for which a candidate that is found again as it was is not written again."""

Timestamp = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Exchange = dict[str, float] | list[Timestamp]


def read_exchange(file: Path) -> dict[str, float] | list[int]:
    """Read memory scores, ``{key: score}``, or trained timestamps in nanoseconds.

    Raises:
        UsageError: the file cannot be read or is neither, or two scores have the same key.
    """
    try:
        # Reading a pipe would wait for somebody to write.
        if file.exists() and not file.is_file():
            raise UsageError(f"{file}: cannot be read: it is no regular file")
        raw = file.read_bytes()
        contents: Exchange = msgspec.json.decode(raw, type=Exchange)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file}: expected JSON, {{key: score}} or [timestamp in ns, …]: {error}"
        ) from None
    if isinstance(contents, dict):
        _require_unique(file, raw, contents)
    return contents


def write_exchange(file: Path, contents: dict[str, float] | list[int]) -> None:
    """Write the file whole or not at all, for its owner alone.

    Raises:
        UsageError: it cannot be written.
    """
    require_regular(file)
    try:
        write_files({file: harmless_json(msgspec.json.encode(contents)) + b"\n"})
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror or error}") from None


def require_regular(file: Path) -> None:
    """Raise ``UsageError`` if ``file`` is there and is no file that can be replaced."""
    if file.exists() and not file.is_file():
        raise UsageError(f"{file}: cannot be written: it is no regular file")


def _require_unique(file: Path, raw: bytes, contents: dict[str, float]) -> None:
    pairs: list[tuple[str, float]] = json.loads(raw, object_pairs_hook=list, parse_int=float)
    for key, score in pairs:
        if contents[key] != score:
            raise UsageError(f"{file}: there are two scores of {key!r}, {score} and another")


@dataclass(frozen=True, slots=True)
class TrainedMarks:
    """The sinks that have accepted each response, by its timestamp and the hash of its ids."""

    marks: Mapping[tuple[int, str], frozenset[str]]

    def covers(
        self, timestamp_ns: int, continuation_ids: Sequence[int], sink: str | None = None
    ) -> bool:
        """Say whether ``sink`` has accepted the response; ``None``: any sink.

        A mark without a hash matches by timestamp alone, and counts for every sink.
        """
        found = self.sinks(timestamp_ns, response_hash(continuation_ids))
        return bool(found) if sink is None else sink in found or "" in found

    def sinks(self, timestamp_ns: int, continuation_hash: str) -> frozenset[str]:
        """Return the sinks that have accepted the response; ``""``: it was imported as trained."""
        nobody: frozenset[str] = frozenset()
        imported = self.marks.get((timestamp_ns, ""), nobody)
        return imported | self.marks.get((timestamp_ns, continuation_hash), nobody)


class Store(Scores, MatrixRows, MatrixNotes, EvidenceTables, ArchiveTables):
    """The scores, candidates, trained marks and evidence of one namespace.

    Every method is one transaction and may raise ``StoreError``. A missing file reads as an empty
    store; the first write makes it. Cells, rows, scores, weights and candidates older
    than ``retention_days`` are removed when one of their kind is written.
    """

    async def record_candidate(
        self, candidate: FinetuneCandidate, model: str, *, conversation: str = ""
    ) -> None:
        """Keep a candidate; one found again replaces the older one, unless nothing has changed.

        If it comes without an alternate, it keeps the older one's.

        Raises:
            StoreError: one of its token ids can be no model's, or the store cannot be written.
        """
        try:
            check_candidate(candidate)
        except ValueError as error:
            raise StoreError(f"the candidate cannot be kept: {error}") from None
        now = time.time()
        name = {
            "model": model,
            "timestamp_ns": candidate.timestamp_ns,
            "continuation_hash": response_hash(candidate.continuation_ids),
        }

        def work(connection: Connection) -> None:
            found = candidate
            known: tuple[FinetuneCandidate, str, float] | None = None
            of = [candidates.c[column] == value for column, value in name.items()]
            columns = (candidates.c.candidate, candidates.c.conversation, candidates.c.found_at)
            query = self._select(candidates, row_id(candidates), *columns).where(*of)
            for known in intact(candidates, connection.execute(query), _decoded):
                if candidate.alternate_text is None:
                    its = known[0]
                    found = replace(
                        candidate,
                        alternate_text=its.alternate_text,
                        alternate_ids=its.alternate_ids,
                    )
            # An agent that looks for candidates after each turn finds the same ones again.
            is_same = known is not None and known[:2] == (found, conversation)
            if known is not None and is_same and 0 <= now - known[2] < FRESH_S:
                return
            self._prune(connection, candidates.c.found_at)
            fresh = {
                "divergence": candidate.divergence,
                "candidate": msgspec.json.encode(found).decode(),
                "found_at": now,
                "conversation": conversation,
            }
            row = self._with_namespace(**name, **fresh)
            upsert(connection, candidates, [row], lambda new: {it: new[it] for it in fresh})
            # A decision holds the text of its candidate, so it goes when the candidate has gone,
            # and stays with one that was old and is found again.
            connection.execute(delete(reviews).where(self._gone(reviews)))

        await self._database.write(work)

    async def earlier_stamps(
        self, found: Sequence[FinetuneCandidate], model: str
    ) -> dict[int, int]:
        """Return the timestamps that earlier versions derived for candidates, by ``entry_idx``.

        Those hashed the whole prompt, so that one response got several. A candidate of such a
        version is the same response if it has the same ids and place, behind the same messages. Of
        several, one that was trained on or decided on counts, else the latest.
        """
        hashes = [response_hash(it.continuation_ids) for it in found]
        table = candidates.c
        earlier = (table.model == model, table.earlier == 1, table.continuation_hash.in_(hashes))
        query = self._select(candidates, row_id(candidates), table.candidate).where(*earlier)
        query = query.order_by(table.found_at)
        names = (reviews.c.timestamp_ns, reviews.c.continuation_hash)
        decided = self._select(reviews, *names).where(reviews.c.model == model)

        def work(connection: Connection) -> dict[int, int]:
            marks = read_marks(connection, self._in_namespace(trained))
            reviewed = {tuple(name) for name in connection.execute(decided)}
            ranked: dict[tuple[Any, ...], tuple[bool, int]] = {}
            for it in intact(candidates, connection.execute(query), decode_candidate):
                name = (it.timestamp_ns, response_hash(it.continuation_ids))
                counts = bool(marks.sinks(*name)) or name in reviewed
                if counts or not ranked.get(_place(it), (False, 0))[0]:
                    ranked[_place(it)] = (counts, it.timestamp_ns)
            return {it.entry_idx: ranked[_place(it)][1] for it in found if _place(it) in ranked}

        return await self._database.read(work)

    async def trained(self) -> TrainedMarks:
        """Return the marks of everything that sinks have accepted."""
        where = self._in_namespace(trained)
        return await self._database.read(lambda connection: read_marks(connection, where))

    async def trained_timestamps(self) -> list[int]:
        """Return the timestamps of all marks, ascending, each once."""
        column = trained.c.timestamp_ns
        found = await self._all(self._select(trained, column).distinct().order_by(column))
        return [row[0] for row in found]

    async def mark_trained(
        self, sent: Iterable[tuple[int, Sequence[int]]], job_id: str | None, sink: str = "http"
    ) -> None:
        """Mark responses, each a timestamp and its ids, as accepted by ``sink``.

        Their outcome is known now, so that they are no sends to it any more.
        """
        await self._mark([(stamp, response_hash(ids)) for stamp, ids in sent], sink, job_id)

    async def unmark_trained(self, job_id: str) -> int:
        """Remove the marks of the responses that were accepted as ``job_id``; return how many.

        A job that is a file may be named without its folder, if no other file is called so.
        """
        jobs = {
            row[0] for row in await self._all(self._select(trained, trained.c.job_id).distinct())
        }
        if job_id not in jobs:
            files = [Path(it) for it in jobs if it and Path(it).is_absolute()]
            named = [str(it) for it in files if it.name == job_id]
            job_id = named[0] if len(named) == 1 else job_id
        return await self._delete(trained, trained.c.job_id == job_id)

    async def import_trained(self, timestamps: Iterable[int]) -> None:
        """Mark all responses with these timestamps as trained."""
        await self._mark([(stamp, "") for stamp in timestamps], "", None)

    async def _mark(self, marks: Sequence[tuple[int, str]], sink: str, job_id: str | None) -> None:
        names = [
            self._with_namespace(timestamp_ns=stamp, continuation_hash=hash_, sink=sink)
            for stamp, hash_ in marks
        ]
        accepted = [{**name, "job_id": job_id, "trained_at": time.time()} for name in names]
        same = [column == bindparam(f"_{column.name}") for column in sends.primary_key]
        settled = [{f"_{column}": value for column, value in name.items()} for name in names]

        def work(connection: Connection) -> None:
            upsert(connection, trained, accepted, replacing(trained))
            if settled:
                connection.execute(delete(sends).where(*same), settled)

        await self._database.write(work)

    def _gone(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that a row of ``table`` is about a candidate that is gone."""
        same = (
            table.c[name] == candidates.c[name]
            for name in ("namespace", "model", "timestamp_ns", "continuation_hash")
        )
        return and_(self._in_namespace(table), ~exists().where(*same))


def _decoded(text: str, conversation: str, found_at: float) -> tuple[FinetuneCandidate, str, float]:
    return decode_candidate(text), conversation, found_at


def _place(candidate: FinetuneCandidate) -> tuple[int, str, tuple[int, ...]]:
    return candidate.entry_idx, candidate.prior_context, tuple(candidate.continuation_ids)


def read_marks(connection: Connection, *where: ColumnElement[bool]) -> TrainedMarks:
    """Return the marks that fulfil ``where``."""
    columns = (trained.c.timestamp_ns, trained.c.continuation_hash, trained.c.sink)
    found: dict[tuple[int, str], set[str]] = defaultdict(set)
    for stamp, hash_, sink in connection.execute(select(*columns).where(*where)):
        found[stamp, hash_].add(sink)
    return TrainedMarks({name: frozenset(sinks) for name, sinks in found.items()})
