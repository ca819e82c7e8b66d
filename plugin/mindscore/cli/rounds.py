"""Rounds of training: wait for the trainer's jobs, and write the ledger after each."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindhooks import MindhooksError, in_thread
from mindscore._util.errors import StoreError, TrainError, format_error
from mindscore.config.file import Configuration
from mindscore.display.screen import Screen
from mindscore.measure.internalisation import RefusedRound, Round
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.store import Ledger, Reviewed, Reviews
from mindscore.training.jobs import TrainerClient, TrainingJob
from mindscore.training.ledger import BASE, Measurer, OtherWeightsError
from mindscore.training.lora.job import ADAPTER

log = logging.getLogger("mindscore")


@dataclass(slots=True)
class Followed:
    """A trainer's job that has ended, and what the ledger has of its round.

    ``unwritten`` says why the ledger has nothing of it, ``remarks`` what it leaves out.
    """

    job: TrainingJob
    round: Round | None = None
    unwritten: str | None = None
    remarks: tuple[str, ...] = field(default=())


class Follower:
    """Waits for jobs of the trainer at ``server.base_url``, and writes the ledger of ``model``.

    ``followed`` are the jobs that have ended so far.
    """

    def __init__(self, configuration: Configuration, screen: Screen, model: str) -> None:
        self._configuration = configuration
        self._screen = screen
        self._model = model
        self.followed: list[Followed] = []

    async def follow(self, job_ids: Sequence[str]) -> None:
        """Wait for each job, and write the ledger after each that passes its guard.

        Raises:
            TrainError: a job failed, or has not passed its guard; those after it were followed.
            ScorerError: the trainer does not answer.
        """
        if not job_ids:
            return
        failures: list[TrainError] = []
        async with aclosing(TrainerClient(self._configuration.settings.server)) as client:
            for job_id in job_ids:
                try:
                    with self._screen.activity("training") as activity:
                        job = await client.finished(job_id, activity)
                    await self.write_round(job)
                except TrainError as error:
                    failures.append(error)
        if failures:
            raise TrainError("; ".join(map(str, failures)))

    async def write_round(self, job: TrainingJob) -> None:
        """Measure with the adapter of a job, which no server has to use yet, in this process.

        Raises:
            TrainError: the job has not passed its guard.
        """
        followed = Followed(job)
        self.followed.append(followed)
        await self.keep_refused(job)
        job.require_guard()
        folder = Path(job.adapter or "")
        if not await in_thread(folder.is_dir):
            followed.unwritten = (
                f"its adapter, {folder}, is not on this machine: once it is activated, "
                f"mindscore ledger --measure {job.job_id}"
            )
            return
        try:
            with self._screen.activity("ledger: loading the model") as activity:
                ledger = Ledger(self._configuration.settings.store)
                answers = await trained_answers(self._configuration, self._model)
                async with aclosing(LocalScorer(self._server(job))) as scorer:
                    measurer = Measurer(scorer, ledger, self._model, activity)
                    try:
                        await measurer.measure(start_round(job.start), job.start, answers)
                    except OtherWeightsError:
                        # If the model itself has been replaced, that begins a new ledger.
                        await scorer.adopt(None)
                        await measurer.measure(BASE, "", answers)
                        await scorer.adopt(Path(job.start))
                        await measurer.measure(start_round(job.start), job.start, answers)
                    await scorer.adopt(folder)
                    followed.round = await measurer.measure(job.job_id, str(folder), answers)
                    followed.remarks = tuple(measurer.left_out.remarks())
        # The training has succeeded, whatever becomes of its measurement.
        except MindhooksError as error:
            followed.unwritten = format_error(error)

    async def keep_refused(self, job: TrainingJob) -> None:
        """Keep in the ledger that a job has not passed its guard, if it has not."""
        if job.guard is None or job.guard.passed:
            return
        refused = RefusedRound(job.job_id, job.adapter or "", time.time(), job.guard.words)
        try:
            await Ledger(self._configuration.settings.store).refuse(self._model, refused)
        # That it is refused is what has to be told.
        except StoreError as error:
            log.warning("the ledger lacks the refused job %s: %s", job.job_id, format_error(error))

    def _server(self, job: TrainingJob) -> dict[str, Any]:
        table = dict(self._configuration.tables.get("server", {}))
        return table | {"scorer": "local", "model": job.model, "adapter": job.start}


def start_round(adapter: str) -> str:
    """Return the name of the round of the adapter that a job goes on from: a job's, if one made it.

    Of others, only the whole path is a name that no other adapter has.
    """
    folder = Path(adapter)
    return BASE if not adapter else folder.parent.name if folder.name == ADAPTER else adapter


async def trained_answers(configuration: Configuration, model: str) -> list[Reviewed]:
    """Return the candidates of ``model`` that were accepted in review, or by a sink.

    Raises:
        TrainError: there are none.
    """
    queue = await Reviews(configuration.settings.store).queue(model)
    found = [it for it in queue if it.sinks or (it.review and it.review.decision == "accepted")]
    if not found:
        raise TrainError(f"no answers of {model} were accepted yet: mindscore review")
    return found
