"""Train adapters for a server: jobs kept on disk, run one at a time in a process of their own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from mindhooks import ScorerError, in_thread
from mindscore._util.errors import TrainError, UsageError, format_error
from mindscore._util.files import make_folder, write_whole
from mindscore._util.text import printable
from mindscore.http.refusals import RefusedError
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.training.guard import Guard, Losses
from mindscore.training.lora.job import (
    ADAPTER,
    JOB,
    LOG,
    Job,
    Measures,
    Progress,
    Recipe,
    Sample,
    require_peft,
    train_adapter,
)

log = logging.getLogger("mindscore.serve")

STATE = "state.json"
ACTIVE = "active"
"""Beside the jobs' folders: the id of the job whose adapter the model has."""

MAX_QUEUED_JOBS = 16
RETRY_AFTER_S = 60
NICENESS = 5
MAX_ENDED_JOBS = 20
"""Ended jobs that are kept: each holds a conversation, and some 20 MB if it succeeded. Older ones
are removed, and their ``Idempotency-Key`` is no longer recognised."""


class JobState(Struct, kw_only=True):
    """The state of one job, as ``state.json`` keeps it.

    ``key`` is the ``Idempotency-Key`` of its request, and ``digest`` a hash of its samples.
    ``tokens`` are those to be learnt, ``loss`` their mean in the last epoch, in nats, while they
    were learnt, and ``sample_loss`` that before the training and after it. ``start`` is the folder
    of the adapter that it went on from, if any. ``guard`` is ``None`` of a job that has not
    succeeded, or by an earlier version. ``created`` is in seconds since 1970.
    """

    job_id: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"] = "queued"
    model: str
    samples: int
    tokens: int
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    start: str = ""
    sample_loss: Losses | None = None
    guard: Guard | None = None
    seconds: float = 0.0
    error: str | None = None
    created: float
    key: str | None
    digest: str

    @property
    def has_ended(self) -> bool:
        """True where its status is final."""
        return self.status not in ("queued", "running")

    def requeue(self) -> None:
        """Have it wait for its turn, as it did at first."""
        self.status, self.error = "queued", None
        self.epoch, self.loss, self.seconds = 0, None, 0.0
        self.sample_loss = self.guard = None


class Trainer:
    """Trains adapters of the model that ``scorer`` has, in private folders below ``folder``.

    Each training goes on from the adapter that the model has when it begins, so that what was
    learnt before is not lost. ``jobs`` are all jobs by their ids, oldest first. ``guard`` is the
    most, in nats per token, that a job may add to the loss of unrelated answers; 0: any amount.
    Samples are written in a thread; states, which are small, in the event loop's.

    Raises:
        TrainError: what training needs is not installed.
    """

    def __init__(
        self,
        scorer: LocalScorer,
        folder: Path,
        recipe: Recipe | None = None,
        threads: int | None = None,
        guard: float = 0.0,
    ) -> None:
        require_peft()
        self._guard = guard
        self.scorer = scorer
        self.jobs: dict[str, JobState] = {}
        self._folder = folder
        self._active: str | None = None
        self._configured = scorer.adapter_folder
        self._recipe = recipe or Recipe()
        # One core is left for the scorer.
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._submitting = asyncio.Lock()
        self._submitted = asyncio.Event()
        self._running: tuple[JobState, asyncio.Task[None]] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Train queued jobs while the context is open.

        The model gets the adapter that it had when the last server ended, unless it has one. The
        job that runs at the end is queued again.

        Raises:
            UsageError: another server trains in that folder.
            TrainError: the folder cannot be used.
        """
        with self._lock():
            self._read()
            await self._adopt_last()
            self._remove_oldest()
            working = asyncio.create_task(self._work())
            try:
                yield
            finally:
                working.cancel()
                await asyncio.wait({working})

    def adapter(self, state: JobState) -> Path:
        """Return the folder of the job's adapter, whether or not there is one."""
        return self._folder / state.job_id / ADAPTER

    async def adopt(self, state: JobState | None) -> None:
        """Give the model the job's adapter, or none, until told otherwise, over restarts too.

        Raises:
            ScorerError: the adapter cannot be used; the model is as it was.
        """
        await self.scorer.adopt(None if state is None else self.adapter(state))
        self._active = None if state is None else state.job_id
        try:
            if self._active is None:
                (self._folder / ACTIVE).unlink(missing_ok=True)
            else:
                write_whole(self._folder / ACTIVE, self._active.encode())
        except OSError as error:
            log.error("the next start will have another adapter: %s", format_error(error))

    async def submit(self, samples: Sequence[Sample], key: str | None) -> JobState:
        """Queue a job for ``samples``, or return the one that was queued with ``key``.

        One that failed or was cancelled is queued again.

        Raises:
            RefusedError: the key belongs to other samples, the queue is full, or the job cannot be
                written.
        """
        # Once begun, a job is written whole even if its client goes.
        return await asyncio.shield(self._submit(samples, key))

    async def cancel(self, state: JobState) -> None:
        """End a job, or have it never begin.

        Raises:
            RefusedError: it has ended.
        """
        if state.has_ended:
            raise RefusedError(409, f"job {state.job_id} has ended: {state.status}")
        state.status = "cancelled"
        self._keep(state)
        if self._running is not None and self._running[0] is state:
            self._running[1].cancel()
            await asyncio.wait({self._running[1]})
        self._remove_oldest()

    async def _submit(self, samples: Sequence[Sample], key: str | None) -> JobState:
        digest = hashlib.sha256(msgspec.json.encode(samples)).hexdigest()
        async with self._submitting:
            state = next((it for it in self.jobs.values() if key and it.key == key), None)
            if state is not None:
                if state.digest != digest:
                    raise RefusedError(
                        422, f"job {state.job_id} has that Idempotency-Key, and other samples"
                    )
                if state.status not in ("failed", "cancelled"):
                    return state
            queued = sum(it.status == "queued" for it in self.jobs.values())
            if queued >= MAX_QUEUED_JOBS:
                headers = {"Retry-After": str(RETRY_AFTER_S)}
                raise RefusedError(429, f"{queued} jobs are queued already", headers=headers)
            try:
                if state is None:
                    state = await self._add(samples, key, digest)
                else:
                    state.requeue()
                    self._write(state)
            except OSError as error:
                reason = f"the job cannot be written: {format_error(error)}"
                if state is not None:
                    state.status, state.error = "failed", reason
                raise RefusedError(507, reason) from error
            self.jobs[state.job_id] = state
            self._submitted.set()
            return state

    async def _add(self, samples: Sequence[Sample], key: str | None, digest: str) -> JobState:
        job = Job(
            self.scorer.model,
            list(samples),
            self._recipe,
            threads=self._threads,
            niceness=NICENESS,
        )
        state = JobState(
            job_id=uuid.uuid4().hex[:12],
            model=job.model,
            samples=len(samples),
            tokens=sum(len(it.continuation_ids) for it in samples),
            epochs=job.recipe.epochs,
            created=time.time(),
            key=key,
            digest=digest,
        )
        file = self._folder / state.job_id / JOB
        await in_thread(lambda: write_whole(file, msgspec.json.encode(job)))
        # It comes last: a folder without a state is not a job.
        self._write(state)
        return state

    async def _work(self) -> None:
        while True:
            self._submitted.clear()
            state = next((it for it in self.jobs.values() if it.status == "queued"), None)
            if state is None:
                await self._submitted.wait()
                continue
            training = asyncio.create_task(self._train(state))
            self._running = state, training
            try:
                await asyncio.wait({training})
            finally:
                training.cancel()
                await asyncio.wait({training})
                self._running = None
            self._remove_oldest()

    async def _train(self, state: JobState) -> None:
        def hear(progress: Progress) -> None:
            state.epoch, state.loss = progress.epoch, progress.loss
            state.seconds = progress.seconds

        def judge(it: Measures) -> None:
            state.sample_loss = it.samples
            state.guard = Guard.judge(it.unrelated, it.base, self._guard)

        state.status = "running"
        self._keep(state)
        try:
            job = await in_thread(self._prepare, state)
            state.start = job.start
            await train_adapter(job, self._folder / state.job_id, hear, judge)
            state.status = "succeeded"
        except asyncio.CancelledError:
            # A job that was cancelled has that status already; else the server ends.
            if state.status == "running":
                state.requeue()
            raise
        # The jobs after it have their turn, however this one fails.
        except Exception as error:
            state.status, state.error = "failed", format_error(error)
        finally:
            self._keep(state)

    def _prepare(self, state: JobState) -> Job:
        """Return the job, which goes on from the model's adapter, and remove an unfinished one."""
        self._remove_adapter(state)
        job = msgspec.json.decode((self._folder / state.job_id / JOB).read_bytes(), type=Job)
        start = self.scorer.adapter_folder if job.model == self.scorer.model else None
        return msgspec.structs.replace(job, start=str(start or ""))

    def _lock(self) -> AbstractContextManager[object]:
        from filelock import FileLock, Timeout

        try:
            make_folder(self._folder)
            return FileLock(self._folder / "lock", thread_local=False).acquire(blocking=False)
        except Timeout:
            raise UsageError(
                f"another server trains in {self._folder}: end it, or serve without --train"
            ) from None
        except OSError as error:
            raise TrainError(f"{self._folder} cannot be used: {format_error(error)}") from error

    def _read(self) -> None:
        found = []
        for file in self._folder.glob(f"*/{STATE}"):
            try:
                found.append(msgspec.json.decode(file.read_bytes(), type=JobState))
            except (OSError, msgspec.DecodeError) as error:
                where = printable(str(file.parent))
                log.error("%s cannot be read (%s): move it away", where, format_error(error))
        self.jobs = {it.job_id: it for it in sorted(found, key=lambda it: it.created)}
        for state in self.jobs.values():
            # Its server was killed. It was accepted, so whoever sent it counts on it.
            if state.status == "running":
                state.requeue()
                self._keep(state)

    async def _adopt_last(self) -> None:
        try:
            with suppress(FileNotFoundError):
                self._active = (self._folder / ACTIVE).read_text("utf-8", "replace")
            if self._active is None or self.scorer.adapter_folder is not None:
                return
            state = self.jobs.get(self._active)
            if state is None or state.status != "succeeded":
                log.error("job %s, whose adapter was active, is gone", printable(self._active))
            elif state.model == self.scorer.model:
                await self.scorer.adopt(self.adapter(state))
        except (OSError, ScorerError) as error:
            log.error("the model has no adapter now: %s", format_error(error))

    def _remove_oldest(self) -> None:
        """Remove jobs that ended long ago, but no adapter that the model has or is to have."""
        try:
            needed = [it.resolve() for it in (self._configured, self.scorer.adapter_folder) if it]
            ended = [it for it in self.jobs.values() if it.has_ended]
            for state in ended[:-MAX_ENDED_JOBS]:
                if state.job_id != self._active and self.adapter(state).resolve() not in needed:
                    self._remove(state)
                    del self.jobs[state.job_id]
        except OSError as error:
            log.error("old jobs cannot be removed: %s", format_error(error))

    def _remove(self, state: JobState) -> None:
        self._remove_adapter(state)
        folder = self._folder / state.job_id
        # The state goes last: what is left of a job after an error still counts as one.
        for name in (JOB, LOG, STATE):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _remove_adapter(self, state: JobState) -> None:
        for folder in (self._folder / state.job_id).glob(f"{ADAPTER}*"):
            shutil.rmtree(folder)

    def _write(self, state: JobState) -> None:
        write_whole(self._folder / state.job_id / STATE, msgspec.json.encode(state))

    def _keep(self, state: JobState) -> None:
        # A job that was removed meanwhile is not written again.
        if state.job_id in self.jobs:
            try:
                self._write(state)
            except OSError as error:
                log.error(
                    "job %s: its state, %s, cannot be written: %s",
                    state.job_id,
                    state.status,
                    error,
                )
