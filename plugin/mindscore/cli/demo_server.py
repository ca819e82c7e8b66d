"""The server of ``mindscore demo --train``: what ``mindscore serve --train`` serves, in here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from aiohttp import web
from msgspec import Struct

from mindhooks import Activity
from mindscore.config import ServerSettings
from mindscore.errors import TrainError
from mindscore.lora.job import Recipe
from mindscore.scorers.local import LocalScorer
from mindscore.scorers.wire import WireClient
from mindscore.serve.app import make_app, make_runner
from mindscore.serve.trainer import Trainer

POLL_S = 0.5
RECIPE = Recipe(target=0.18, keep=70.0)
"""For longer than a server trains by default, and the more held to what the model said before."""


class Job(Struct):
    """What ``/v1/train/JOB`` says: ``loss`` is the last epoch's mean, in nats per token."""

    status: str
    epoch: int
    epochs: int
    loss: float | None
    seconds: float
    error: str | None


class DemoServer:
    """A server that trains, as its clients see it."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._client = WireClient(ServerSettings(base_url=base_url))

    async def finished(self, job_id: str, activity: Activity) -> Job:
        """Wait for a job, which ``activity`` shows the progress of.

        Raises:
            TrainError: why there is no adapter.
        """
        while True:
            job = await self._client.get(f"/train/{job_id}", Job)
            if job.status == "succeeded":
                return job
            if job.status not in ("queued", "running"):
                raise TrainError(f"job {job_id} {job.status}: {job.error}")
            loss = "" if job.loss is None else f", {job.loss:.2f} nats per token"
            activity.update(f"training: epoch {job.epoch}{loss}", job.epoch, job.epochs or None)
            await asyncio.sleep(POLL_S)

    async def activate(self, job_id: str) -> None:
        """Have the model with what came of the job from now on."""
        await self._client.post(f"/train/{job_id}/activate", {}, Job)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


@asynccontextmanager
async def demo_server(folder: Path) -> AsyncIterator[DemoServer]:
    """Serve the bundled model on loopback, and train it in ``folder``.

    Raises:
        TrainError: what training needs is not installed.
    """
    async with aclosing(LocalScorer({})) as scorer:
        # Loads the model: from here on, what is sent to be trained on is checked against it.
        await scorer.tokenize("")
        # Nobody asks for anything meanwhile.
        trainer = Trainer(scorer, folder, RECIPE, threads=os.cpu_count() or 1)
        app = make_app(scorer, trainer=trainer)
        runner = make_runner(app)
        try:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            async with aclosing(DemoServer(f"http://{host}:{port}/v1")) as server:
                yield server
        finally:
            await runner.cleanup()
