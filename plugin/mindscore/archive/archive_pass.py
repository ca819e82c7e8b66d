"""A pass over an archive: every conversation once, by one server or several, and what is done."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from mindhooks import FinetuneStats, MemoryStats, ScorerUnavailable
from mindscore._util.errors import format_error
from mindscore.archive.attempt import TOO_LARGE, Attempt, Attempts, Server, Work
from mindscore.archive.budget import TokenBudget
from mindscore.archive.jobs import NOT_REACHED, Job, Jobs, Taker
from mindscore.archive.pass_record import (
    BUDGET_SPENT,
    UNFINISHED,
    PassFingerprint,
    conditions_of,
    last_fingerprint,
    record_of,
    settings_digest,
    transcript_digest,
)
from mindscore.archive.ray_rows import Finding
from mindscore.archive.resuming import Past, read_past
from mindscore.archive.survey import ArchiveReader, Found, Survey, chosen_transcripts
from mindscore.archive.unit import ScoredConversation, open_unit
from mindscore.config.file import merge
from mindscore.config.settings import parse_settings
from mindscore.conversation.conversation import Transcript
from mindscore.measure.cached_scorer import weights_of
from mindscore.measure.retry import Retry
from mindscore.store import Mode, Pass, Store


@dataclass(frozen=True, slots=True)
class Failure:
    """A conversation that could not be scored, or not wholly."""

    conversation: str
    source: str
    error: str


@dataclass(slots=True)
class PassState:
    """The part of a pass that is done, and the part that is left."""

    total: int = 0
    scored: int = 0
    unchanged: int = 0
    responses: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    computed_tokens: int | None = 0
    work: int = 0
    """The work that is done, in tokens as the survey estimates them, of ``all_work``."""
    all_work: int = 0
    failures: list[Failure] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    cells: Counter[Mode] = field(default_factory=Counter)
    """The effects that were measured or estimated, by the mode of their evidence."""
    remarks: dict[str, None] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        """The conversations that have ended, one way or the other."""
        return self.scored + len(self.failures)

    @property
    def is_cut_short(self) -> bool:
        """True if conversations were not reached, because no server was up."""
        return self.left_out[NOT_REACHED] > 0

    @property
    def seconds(self) -> float:
        """The wall time so far."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """The wall time that is left, by the work that is done; ``None``: not known yet."""
        if not self.work:
            return None
        return self.seconds * max(0, self.all_work - self.work) / self.work

    def spend(self, stats: MemoryStats | FinetuneStats | Pass | None) -> None:
        """Count what a conversation took."""
        if stats is not None:
            self.calls += stats.calls
            self.prompt_tokens += stats.prompt_tokens
            if self.computed_tokens is not None and stats.calls:
                computed = stats.computed_tokens
                self.computed_tokens = None if computed is None else self.computed_tokens + computed


def work_of(found: Found) -> int:
    """Return about how many tokens a conversation's prompts have together."""
    return found.tokens * (found.memories + 1)


class ArchivePass:
    """Runs one command over the chosen conversations of an archive.

    Each that ends is recorded in the store, so that the same command goes on after an
    interruption, and pays for no conversation again that has not changed. ``heard`` is called with
    each that was scored, ``progress`` whenever something has.
    """

    def __init__(
        self,
        reader: ArchiveReader,
        tables: Mapping[str, Any],
        command: str,
        *,
        measure_again: bool = False,
        max_tokens: int | None = None,
        heard: Callable[[ScoredConversation | Finding], None] = lambda _: None,
        progress: Callable[[PassState], None] = lambda _: None,
    ) -> None:
        self._reader = reader
        # What is due is told by the records of passes.
        self._tables = merge(tables, {"memory": {"interval_s": 0}})
        self._command = command
        self._measure_again = measure_again
        self._max_tokens = max_tokens
        self._heard = heard
        self._progress = progress
        self._settings = parse_settings(tables)
        self._attempts = Attempts(
            command, self._settings, TokenBudget(max_tokens), measure_again=measure_again
        )
        self._digest = settings_digest(tables, command)
        self._store = Store(self._settings.store)
        self._passes: dict[str, Pass] = {}
        self.state = PassState()

    async def run(self, survey: Survey, chosen: Sequence[Found]) -> None:
        """Score what is not scored yet of the ``chosen`` conversations.

        Raises:
            ConfigError: a scorer cannot be built because of the configuration.
            ScorerError: no server answers.
            StoreError: the store cannot be read or written.
        """
        async with AsyncExitStack() as stack:
            servers = await self._open(stack)
            todo = await self._todo(servers, chosen)
            transcripts = chosen_transcripts(self._reader, survey.files, todo)
            jobs = Jobs(transcripts, [it.taker for it in servers], self._begun())
            try:
                async with asyncio.TaskGroup() as group:
                    for server in servers:
                        group.create_task(self._serve(server, jobs))
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
        for found, error in jobs.failed:
            self._fail(found, str(survey.files[found.file].path), error)
        if not_reached := len(todo) - jobs.taken - len(jobs.failed):
            self.state.left_out[NOT_REACHED] += not_reached
        self._progress(self.state)

    def _begun(self) -> dict[str, str]:
        """Return the conditions of conversations that were begun, by their ids."""
        if self._measure_again:
            return {}
        begun = {
            it.conversation: PassFingerprint.parse(it.fingerprint) for it in self._unfinished()
        }
        return {id_: it.conditions for id_, it in begun.items() if it is not None}

    def _unfinished(self) -> Iterable[Pass]:
        return (it for it in self._passes.values() if it.error is not None)

    async def _open(self, stack: AsyncExitStack) -> list[_Taking]:
        """Open a registry for each server that answers.

        Raises:
            ScorerError: none does.
        """
        servers, errors = [], []
        for place, tables in places_of(self._tables).items():
            try:
                server = await open_server(stack, tables, self._digest)
            except ScorerUnavailable as error:
                errors.append(error)
                self.state.remarks[f"{place} is down: {format_error(error)}"] = None
                continue
            servers.append(_Taking(server, Taker(place, server.conditions)))
        if not servers:
            raise errors[0]
        if any(not it.taker.conditions for it in servers):
            self.state.remarks[
                "the server does not tell which adapter it has: every conversation is scored anew"
            ] = None
        return servers

    async def _todo(self, servers: Sequence[_Taking], chosen: Sequence[Found]) -> list[Found]:
        """Return what is to be scored of ``chosen``: what is new, changed, grown or unfinished."""
        for model in {it.server.model for it in servers}:
            for done in await self._store.passes(model, self._command):
                self._passes[done.conversation] = done
        conditions = {it.taker.conditions for it in servers} - {""}
        todo = []
        for it in chosen:
            known = self._passes.get(it.id)
            last = last_fingerprint(known, conditions)
            is_done = known is not None and known.error is None and not self._measure_again
            if is_done and last is not None and last.content == it.digest.hex():
                self.state.unchanged += 1
            else:
                todo.append(it)
        self.state.total = len(todo)
        self.state.all_work = sum(map(work_of, todo))
        self._progress(self.state)
        return todo

    async def _serve(self, server: _Taking, jobs: Jobs) -> None:
        """Score what one server takes, until nothing is left, or it is down."""
        state, taker = self.state, server.taker
        while (job := await jobs.take(taker)) is not None:
            ended = await self._score(server, job)
            is_down = taker.end(gave_up=ended.gave_up)
            self._progress(state)
            if not ended.gave_up:
                await jobs.done()
                continue
            if not await jobs.give_up(job, taker):
                self._fail(job.found, str(job.transcript.file), ended.error or "")
            if is_down:
                state.remarks[down_remark(taker.place, ended.error)] = None
                await jobs.leave(taker)

    async def _score(self, server: _Taking, job: Job) -> Attempt:
        """Score one conversation, and record and count how it has ended."""
        found, transcript = job.found, job.transcript
        work = await self._work(found, transcript, server.server.model)

        async def begun(fingerprint: PassFingerprint) -> None:
            await self._store.record_pass(self._record(server, job, fingerprint, UNFINISHED, None))

        ended = await self._attempts.score(server.server, work, begun)
        scored = ended.scored
        if ended.gave_up:
            self.state.spend(None if scored is None else scored.result.stats)
            return ended
        if ended.fingerprint is not None:
            done = self._record(server, job, ended.fingerprint, ended.error, scored)
            await self._store.record_pass(done)
        stats = None if scored is None else scored.result.stats
        self._count(found, str(transcript.file), ended.error, stats)
        if scored is not None:
            self.state.cells.update(it.mode for it in scored.evidence())
            self._heard(scored)
        return ended

    async def _work(
        self, found: Found, transcript: Transcript, model: str, *, rows: bool = False
    ) -> Work:
        """Return a conversation with its past; ``rows``: also those that a flow reads by itself."""
        known, past = self._passes.get(found.id), Past()
        if not self._measure_again:
            past = await read_past(self._store, known, model, found.id, self._command, rows=rows)
        # Of what was read now: the file may have changed since the survey.
        content = transcript_digest(transcript).hex()
        return Work(transcript, content, self._reader.keys(transcript), found.tokens, past)

    def _count(
        self,
        found: Found,
        source: str,
        error: str | None,
        stats: MemoryStats | FinetuneStats | Pass | None,
    ) -> None:
        """Count a conversation that has ended; ``stats`` are ``None`` if nothing was measured."""
        state = self.state
        if error in (TOO_LARGE, NOT_REACHED):
            state.left_out[error] += 1
            return
        if stats is None and error is not None:
            self._fail(found, source, error)
            return
        state.work += work_of(found)
        if stats is None:
            state.unchanged += 1
            state.total -= 1
            return
        state.spend(stats)
        state.responses += found.responses
        if error == BUDGET_SPENT:
            state.left_out["in part, by --max-tokens"] += 1
        elif error is not None:
            self._fail(found, source, error)
        else:
            state.scored += 1

    def _fail(self, found: Found, source: str, error: str) -> None:
        self.state.failures.append(Failure(found.id, source, error))

    def _record(
        self,
        server: _Taking,
        job: Job,
        fingerprint: PassFingerprint,
        error: str | None,
        scored: ScoredConversation | None,
    ) -> Pass:
        result = None if scored is None else scored.result
        return record_of(
            server.server.model if result is None else result.model,
            job.found.id,
            self._command,
            fingerprint,
            error,
            None if result is None else result.stats,
        )


@dataclass(frozen=True, slots=True)
class _Taking:
    """A server that takes conversations."""

    server: Server
    taker: Taker


def down_remark(place: str, error: str | None) -> str:
    """Return the remark on a server that has failed too often."""
    return f"{place} is down, and takes no more: {error}"


def places_of(tables: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the settings for each server of a pass, by the server's place."""
    server = parse_settings(tables).server
    if not server.base_urls:
        return {server.place: tables}
    return {url: merge(tables, {"server": {"base_url": url}}) for url in server.base_urls}


async def open_server(stack: AsyncExitStack, tables: Mapping[str, Any], digest: bytes) -> Server:
    """Open a registry for a server; ``digest`` is that of ``settings_digest``.

    Raises:
        ConfigError: a scorer cannot be built because of the configuration.
        ScorerUnavailable: the server does not answer.
    """
    unit, settings = await stack.enter_async_context(open_unit(tables)), parse_settings(tables)
    scorer = await unit.scorer()
    weights = await weights_of(scorer, settings.server, Retry(settings.server))
    return Server(unit, scorer.model, conditions_of(digest, weights))
