"""A pass over an archive: every conversation once, by one server or several, and what is done."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from mindhooks import (
    Context,
    FinetuneStats,
    MemoryStats,
    MindCommand,
    MindhooksError,
    ScorerUnavailable,
)
from mindscore._util.errors import format_error
from mindscore.archive.budget import TokenBudget, most_tokens
from mindscore.archive.jobs import Job, Jobs, Taker
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
from mindscore.archive.resuming import Remainder, begin, remainder
from mindscore.archive.survey import ArchiveReader, Found, Survey, chosen_transcripts
from mindscore.archive.unit import ScoredConversation, Unit, open_unit
from mindscore.config.file import merge
from mindscore.config.settings import parse_settings
from mindscore.measure.cached_scorer import weights_of
from mindscore.measure.retry import Retry
from mindscore.store import Pass, Store

FAILURES_OF_A_SERVER = 2
"""Conversations in a row that a server gives up on before it counts as down."""


NOT_REACHED = "not reached: no server is up"
TOO_LARGE = "too large for --max-tokens"


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
        self._is_finetune = command == MindCommand.SCORE_FINETUNE
        self._budget = TokenBudget(max_tokens)
        self._heard = heard
        self._progress = progress
        self._settings = parse_settings(tables)
        self._options = self._settings.plugins.settings.get("memory-scoring", {})
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
            source = str(survey.files[found.file].path)
            self.state.failures.append(Failure(found.id, source, error))
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

    async def _open(self, stack: AsyncExitStack) -> list[_Server]:
        """Open a registry for each server that answers.

        Raises:
            ScorerError: none does.
        """
        servers, errors = [], []
        for place, tables in self._places():
            unit = await stack.enter_async_context(open_unit(tables))
            scorer = await unit.scorer()
            settings = parse_settings(tables)
            try:
                weights = await weights_of(scorer, settings.server, Retry(settings.server))
            except ScorerUnavailable as error:
                errors.append(error)
                self.state.remarks[f"{place} is down: {format_error(error)}"] = None
                continue
            taker = Taker(place, conditions_of(self._digest, weights))
            servers.append(_Server(unit, scorer.model, taker))
        if not servers:
            raise errors[0]
        if any(not it.taker.conditions for it in servers):
            self.state.remarks[
                "the server does not tell which adapter it has: every conversation is scored anew"
            ] = None
        return servers

    def _places(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        urls = self._settings.server.base_urls
        if not urls:
            return [(self._settings.server.place, self._tables)]
        return [(url, merge(self._tables, {"server": {"base_url": url}})) for url in urls]

    async def _todo(self, servers: Sequence[_Server], chosen: Sequence[Found]) -> list[Found]:
        """Return what is to be scored of ``chosen``: what is new, changed, grown or unfinished."""
        for model in {it.model for it in servers}:
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

    async def _serve(self, server: _Server, jobs: Jobs) -> None:
        """Score what one server takes, until nothing is left, or it is down."""
        taker = server.taker
        while (job := await jobs.take(taker)) is not None:
            state = self.state
            if not self._budget.may_fit(job.found.tokens):
                state.left_out[TOO_LARGE] += 1
                await jobs.done()
                continue
            error = await self._score(server, job)
            self._progress(state)
            if error is None:
                taker.failures = 0
                await jobs.done()
                continue
            taker.failures += 1
            if not await jobs.give_up(job, taker):
                state.failures.append(_failure(job, error))
            if taker.failures >= FAILURES_OF_A_SERVER:
                state.remarks[f"{taker.place} is down, and takes no more: {error}"] = None
                await jobs.leave(taker)

    async def _score(self, server: _Server, job: Job) -> str | None:
        """Score one conversation, or return why the server gave up on it."""
        found, transcript, again = job.found, job.transcript, self._measure_again
        try:
            context = await server.unit.render(transcript)
        except ScorerUnavailable as error:
            return format_error(error)
        except MindhooksError as error:
            self.state.failures.append(_failure(job, format_error(error)))
            return None
        known, conditions = self._passes.get(found.id), server.taker.conditions
        # Of what was read now: the file may have changed since the survey.
        content = transcript_digest(transcript).hex()
        left = await remainder(
            begin(known, content, conditions, measure_again=again),
            context,
            self._reader.keys(transcript),
            self._command,
            server.model,
            self._settings,
            measure_again=again,
        )
        most = self._most(context)
        granted = self._budget.reserve(most)
        if granted is not None and (granted < most if self._is_finetune else granted == 0):
            self._budget.settle(granted, 0)
            self.state.left_out[TOO_LARGE] += 1
            return None
        scored = await self._run(server, job, left, granted) if left.keys else None
        stats = None if scored is None else scored.result.stats
        self._budget.settle(granted, stats.prompt_tokens if stats else 0)
        if server.unit.gave_up and scored is not None:
            self.state.spend(stats)
            return scored.error
        await self._end(server, job, left.fingerprint, context, scored)
        return None

    def _most(self, context: Context) -> int:
        repeats = self._settings.memory.noise_repeats
        hold = bool(self._options.get("hold"))
        return most_tokens(
            context, self._command, hold=hold, repeats=1 if repeats == "auto" else repeats
        )

    async def _run(
        self, server: _Server, job: Job, left: Remainder, granted: int | None
    ) -> ScoredConversation:
        options = {**self._options, **left.options}
        if granted is not None:
            options["max_tokens"] = granted
        await self._store.record_pass(self._record(server, job, left.fingerprint, UNFINISHED, None))
        keys = self._reader.keys(job.transcript)
        return await server.unit.score(job.transcript, self._command, keys, options)

    async def _end(
        self,
        server: _Server,
        job: Job,
        fingerprint: PassFingerprint,
        context: Context,
        scored: ScoredConversation | None,
    ) -> None:
        """Record the end of a conversation and count it; ``None``: nothing of it was left."""
        state, found, error = self.state, job.found, None
        if scored is not None:
            error = scored.error
            outcomes = scored.result.outcomes.values()
            if error is None and any(it.status == "left-out" for it in outcomes):
                error = BUDGET_SPENT
        if error is None:
            fingerprint = fingerprint.finished(context)
        done = self._record(server, job, fingerprint, error, scored)
        await self._store.record_pass(done)
        state.work += work_of(found)
        if scored is None:
            state.unchanged += 1
            state.total -= 1
            return
        state.spend(scored.result.stats)
        state.responses += found.responses
        self._heard(scored)
        if error == BUDGET_SPENT:
            state.left_out["in part, by --max-tokens"] += 1
        elif error is not None:
            state.failures.append(_failure(job, error))
        else:
            state.scored += 1

    def _record(
        self,
        server: _Server,
        job: Job,
        fingerprint: PassFingerprint,
        error: str | None,
        scored: ScoredConversation | None,
    ) -> Pass:
        result = None if scored is None else scored.result
        return record_of(
            server.model if result is None else result.model,
            job.found.id,
            self._command,
            fingerprint,
            error,
            None if result is None else result.stats,
        )


@dataclass(slots=True)
class _Server:
    """A server with its registry."""

    unit: Unit
    model: str
    taker: Taker


def _failure(job: Job, error: str) -> Failure:
    return Failure(job.found.id, str(job.transcript.file), error)
