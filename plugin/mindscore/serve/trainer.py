"""Trains for a server: one job at a time, in a process of its own, the others in a queue."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import msgspec

from mindhooks import ScorerError, in_thread
from mindscore._util.errors import TrainError, UsageError, format_error
from mindscore._util.files import make_folder
from mindscore._util.text import printable
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.serve.jobs import Training, TrainingFolder
from mindscore.serve.requests import RefusedError
from mindscore.training.lora.job import Job, Progress, Recipe, Sample
from mindscore.training.lora.process import require_peft, train_adapter

log = logging.getLogger("mindscore.serve")

MOST_QUEUED = 16
RETRY_AFTER_S = 60
NICENESS = 5
MOST_ENDED = 20
"""Jobs that have ended and are kept: each holds a conversation, and some 20 MB if it succeeded.
Older ones can't be looked at any more, nor their ``Idempotency-Key`` be recognised."""


class Trainer:
    """The trainings of the model that ``scorer`` is.

    Each goes on from the adapter that the model has when it begins: what was learnt before is not
    lost.
    """

    def __init__(
        self,
        scorer: LocalScorer,
        folder: Path,
        recipe: Recipe | None = None,
        threads: int | None = None,
    ) -> None:
        require_peft()
        self.scorer = scorer
        self._configured = scorer.adapter_folder
        self._recipe = recipe or Recipe()
        self._threads = threads or _threads()
        self._folder = TrainingFolder(folder)
        self._trainings: dict[str, Training] = {}
        self._submitting = asyncio.Lock()
        self._keeping = asyncio.Lock()
        self._submitted = asyncio.Event()
        self._running: Training | None = None
        self._process: asyncio.Task[Path] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Train, for the ``with`` block, what is and comes in the queue.

        The model has the adapter again that it had when the last server ended, unless it has one.

        Raises:
            UsageError: another server trains in that folder.
            TrainError: the folder cannot be used.
        """
        with await in_thread(self._locked):
            await self._read()
            await self._adopt_last()
            await self._remove_oldest()
            working = asyncio.create_task(self._work())
            try:
                yield
            finally:
                working.cancel()
                await asyncio.wait({working})

    @property
    def trainings(self) -> Mapping[str, Training]:
        """All trainings by their ids, oldest first."""
        return self._trainings

    def adapter(self, training: Training) -> Path:
        """The folder of what has come of it."""
        return self._folder.adapter(training)

    def is_active(self, training: Training) -> bool:
        """Whether the model has that adapter now."""
        return self.scorer.adapter_folder == self.adapter(training)

    async def adopt(self, training: Training | None) -> None:
        """Have the model with what came of it, or without any adapter, until told otherwise.

        Raises:
            ScorerError: the adapter cannot be used; the model is as it was.
        """
        await self.scorer.adopt(None if training is None else self.adapter(training))
        try:
            await in_thread(self._folder.keep_active, training and training.job_id)
        except OSError as error:
            log.error("the next start will have another adapter: %s", format_error(error))

    async def submit(self, samples: Sequence[Sample], key: str | None) -> Training:
        """The training of ``samples``: a new one, or the one that was asked for with ``key``.

        One that failed or was cancelled is queued again.

        Raises:
            RefusedError: the key was another request's, or the queue is full.
        """
        digest = hashlib.sha256(msgspec.json.encode(samples)).hexdigest()
        # Once it is begun, it is kept whole, whether or not its client is still there.
        return await asyncio.shield(self._submit(samples, key, digest))

    async def cancel(self, training: Training) -> None:
        """End it, or have it never begin.

        Raises:
            RefusedError: it has ended.
        """
        if training.has_ended:
            raise RefusedError(409, f"job {training.job_id} has ended: {training.status}")
        training.status = "cancelled"
        if self._running is training and self._process is not None:
            self._process.cancel()
            await asyncio.wait({self._process})
        await self._keep(training)

    def _locked(self) -> AbstractContextManager[object]:
        from filelock import FileLock, Timeout

        folder = self._folder.folder
        try:
            make_folder(folder)
            return FileLock(folder / "lock", thread_local=False).acquire(blocking=False)
        except Timeout:
            raise UsageError(
                f"another server trains in {folder}: end it, or serve without --train"
            ) from None
        except OSError as error:
            raise TrainError(f"{folder} cannot be used: {format_error(error)}") from error

    async def _read(self) -> None:
        for training in await in_thread(self._folder.read):
            self._trainings[training.job_id] = training
            if training.status == "running":
                # Its server ended. It was accepted: whoever sent it counts on it.
                training.begin_anew()
                await self._keep(training)
            if training.status != "succeeded":
                try:
                    await in_thread(self._folder.clear, training)
                except OSError as error:
                    log.error("job %s: %s", training.job_id, format_error(error))

    async def _adopt_last(self) -> None:
        try:
            last = await in_thread(self._folder.active)
            training = self._trainings.get(last or "")
            if last is None or self.scorer.adapter_folder is not None:
                return
            if training is None or training.status != "succeeded":
                log.error(
                    "job %s, whose adapter was active, is not there any more", printable(last)
                )
            elif training.model == self.scorer.model:
                await self.scorer.adopt(self.adapter(training))
        except (OSError, ScorerError) as error:
            log.error("the model has no adapter now: %s", format_error(error))

    async def _remove_oldest(self) -> None:
        """Remove what ended long ago, but no adapter that the model has or is to have."""
        try:
            last = await in_thread(self._folder.active)
            wanted = [it.resolve() for it in (self._configured, self.scorer.adapter_folder) if it]
            # Not while one of them is asked for again, or how it stands is being written.
            async with self._submitting, self._keeping:
                ended = [it for it in self._trainings.values() if it.has_ended]
                for training in ended[:-MOST_ENDED]:
                    if training.job_id != last and self.adapter(training).resolve() not in wanted:
                        await in_thread(self._folder.remove, training)
                        del self._trainings[training.job_id]
        except OSError as error:
            log.error("old jobs cannot be removed: %s", format_error(error))

    async def _submit(self, samples: Sequence[Sample], key: str | None, digest: str) -> Training:
        async with self._submitting:
            known = self._known(key, digest)
            if known is not None and known.status not in ("failed", "cancelled"):
                return known
            queued = sum(it.status == "queued" for it in self._trainings.values())
            if queued >= MOST_QUEUED:
                raise RefusedError(
                    429,
                    f"{queued} jobs wait already",
                    headers={"Retry-After": str(RETRY_AFTER_S)},
                )
            training = await (self._again(known) if known else self._add(samples, key, digest))
            self._trainings[training.job_id] = training
            self._submitted.set()
            return training

    def _known(self, key: str | None, digest: str) -> Training | None:
        for known in self._trainings.values():
            if key is not None and known.key == key:
                if known.digest != digest:
                    raise RefusedError(
                        422, f"job {known.job_id} has that Idempotency-Key, and other samples"
                    )
                return known
        return None

    async def _again(self, training: Training) -> Training:
        failed = msgspec.structs.replace(training)
        training.begin_anew()
        try:
            async with self._keeping:
                await in_thread(self._folder.update, training)
        except OSError as error:
            training.status, training.error = failed.status, failed.error
            raise RefusedError(507, f"the job cannot be kept: {format_error(error)}") from error
        return training

    async def _add(self, samples: Sequence[Sample], key: str | None, digest: str) -> Training:
        job = Job(
            self.scorer.model,
            list(samples),
            self._recipe,
            threads=self._threads,
            niceness=NICENESS,
        )
        training = Training(
            job_id=uuid.uuid4().hex[:12],
            model=job.model,
            samples=len(samples),
            tokens=sum(len(it.continuation_ids) for it in samples),
            epochs=job.recipe.epochs,
            created=time.time(),
            key=key,
            digest=digest,
        )
        try:
            await in_thread(self._folder.add, training, job)
        except OSError as error:
            raise RefusedError(507, f"the job cannot be kept: {format_error(error)}") from error
        return training

    async def _work(self) -> None:
        while True:
            self._submitted.clear()
            queued = [it for it in self._trainings.values() if it.status == "queued"]
            if queued:
                await self._train(queued[0])
            else:
                await self._submitted.wait()

    async def _train(self, training: Training) -> None:
        self._running, training.status = training, "running"
        try:
            await self._keep(training)
            job = await in_thread(self._folder.job, training)
            await in_thread(self._folder.clear, training)
            if training.status == "running":
                await self._run(training, job)
                training.status = "succeeded"
        except asyncio.CancelledError:
            # It may be the job that was cancelled, and not this.
            this = asyncio.current_task()
            if this is not None and this.cancelling():
                if training.status == "running":
                    training.begin_anew()
                raise
        # Whatever is wrong with one job, those after it are to have their turn.
        except Exception as error:
            training.status, training.error = "failed", format_error(error)
        finally:
            self._running = None
            await self._keep(training)
        await self._remove_oldest()

    async def _run(self, training: Training, job: Job) -> None:
        def hear(progress: Progress) -> None:
            training.epoch, training.loss = progress.epoch, progress.loss
            training.seconds = progress.seconds

        active = self.scorer.adapter_folder if job.model == self.scorer.model else None
        started = msgspec.structs.replace(job, start=str(active or ""))
        folder = self._folder.of(training)
        self._process = asyncio.create_task(train_adapter(started, folder, hear))
        try:
            await self._process
        finally:
            self._process = None

    async def _keep(self, training: Training) -> None:
        async with self._keeping:
            if training.job_id not in self._trainings:
                # Removed meanwhile.
                return
            try:
                await in_thread(self._folder.update, training)
            except OSError as error:
                log.error("job %s: %s cannot be kept: %s", training.job_id, training.status, error)


def _threads() -> int:
    """All cores but one, which is the scorer's."""
    return max(1, (os.cpu_count() or 1) - 1)
