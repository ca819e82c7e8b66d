"""A client of ``mindscore serve --train``: how a job goes, and the adapter that it makes."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct

from mindhooks import Activity
from mindscore._util.errors import TrainError
from mindscore.config.settings import ServerSettings
from mindscore.http.client import WireClient
from mindscore.measure.retry import with_retries
from mindscore.training.guard import Guard, Losses

POLL_S = 0.5

JOB_HEADER = "Mindscore-Job"
"""The header with the job's id in the answer to ``POST /v1/train``.

The body is as any trainer's: by this one is known that ``GET /v1/train/JOB`` says how it goes."""

MODEL_HEADER = "Mindscore-Model"
"""The header of ``POST /v1/train`` with the model that the samples are of, percent-encoded.

A trainer of another model refuses them: the same ids are other tokens to it, or other memories."""


class TrainingJob(Struct):
    """A training job, as ``/v1/train/JOB`` describes it.

    ``loss`` is the last epoch's mean, in nats per token; ``adapter`` and ``start`` are the folders
    of what it has made and of what it went on from, on the trainer's machine.
    """

    job_id: str
    status: str
    model: str
    epoch: int
    epochs: int
    loss: float | None
    seconds: float
    error: str | None
    adapter: str | None = None
    start: str = ""
    sample_loss: Losses | None = None
    guard: Guard | None = None

    @property
    def words(self) -> str:
        """The epochs and the loss in words."""
        loss = "" if self.loss is None else f"; loss of the last: {self.loss:.2f} nats per token"
        return f"{self.epoch} epochs in {self.seconds:.0f} s{loss}"

    def require_guard(self) -> None:
        """Raise an error if the job has not passed its guard.

        Raises:
            TrainError: the text has the numbers.
        """
        if self.guard is not None and not self.guard.passed:
            raise TrainError(
                f"job {self.job_id} has not passed its guard (train.guard): {self.guard.words}; "
                f"its adapter is not used, and stays in {self.adapter}"
            )


class TrainerClient:
    """Asks a trainer about its jobs, and has it use their adapters."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._client = WireClient(settings)

    async def finished(self, job_id: str, activity: Activity) -> TrainingJob:
        """Wait until a job has succeeded, and show its progress in ``activity``.

        Raises:
            TrainError: it failed; says why.
            ScorerError: the trainer does not answer.
        """
        while True:
            job = await with_retries(
                lambda: self._client.get(f"/train/{job_id}", TrainingJob), self._settings
            )
            if job.status == "succeeded":
                return job
            if job.status not in ("queued", "running"):
                raise TrainError(f"job {job_id} {job.status}: {job.error}")
            loss = "" if job.loss is None else f", {job.loss:.2f} nats per token"
            activity.update(f"training: epoch {job.epoch}{loss}", job.epoch, job.epochs or None)
            await asyncio.sleep(POLL_S)

    async def activate(self, job_id: str) -> None:
        """Swap the job's adapter in.

        Raises:
            ScorerError: the trainer refuses; the text says why.
        """
        body: dict[str, Any] = {}
        await self._client.post(f"/train/{job_id}/activate", body, TrainingJob)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
