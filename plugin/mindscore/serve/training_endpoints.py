"""The endpoints that train: jobs, and which adapter the model has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from msgspec import Struct

from mindscore.serve.jobs import Training
from mindscore.serve.queue import RequestQueue
from mindscore.serve.requests import FIRST, RefusedError, TrainRequest, json_answer, read_request
from mindscore.serve.trainer import Trainer
from mindscore.training.lora.job import Sample

MOST_NAMED = 3
"""Samples that an error names: clients show its beginning."""


class _Nothing(Struct):
    """A body that says nothing: ``{}``."""


class TrainingEndpoints:
    """One trainer's; its model changes in turns of ``scoring``."""

    def __init__(self, trainer: Trainer, scoring: RequestQueue, body_timeout_s: float) -> None:
        self._trainer = trainer
        self._scorer = trainer.scorer
        self._scoring = scoring
        self._body_timeout_s = body_timeout_s

    def routes(self) -> list[web.RouteDef]:
        """Method, path and handler of each."""
        return [
            web.post("/v1/train", self.train),
            web.get("/v1/train", self.jobs),
            web.get("/v1/train/{job_id}", self.job),
            web.delete("/v1/train/{job_id}", self.cancel),
            web.post("/v1/train/{job_id}/activate", self.activate),
            web.delete("/v1/adapter", self.deactivate),
        ]

    async def train(self, request: web.Request) -> web.Response:
        """A new job; with the ``Idempotency-Key`` of an earlier one, that one."""
        asked = await read_request(request, TrainRequest, self._body_timeout_s)
        samples = asked.training_data.samples
        self._check(samples)
        key = request.headers.get("Idempotency-Key")
        training = await self._trainer.submit(samples, key)
        return json_answer({"job_id": training.job_id})

    async def jobs(self, _: web.Request) -> web.Response:
        """All jobs, oldest first."""
        return json_answer({"jobs": list(map(self._told, self._trainer.trainings.values()))})

    async def job(self, request: web.Request) -> web.Response:
        """One job."""
        return json_answer(self._told(self._asked(request)))

    async def cancel(self, request: web.Request) -> web.Response:
        """End a job that has not ended."""
        training = self._asked(request)
        await self._trainer.cancel(training)
        return json_answer(self._told(training))

    async def activate(self, request: web.Request) -> web.Response:
        """Have the model with what came of a job, once what is being computed is."""
        training = self._asked(request)
        await read_request(request, _Nothing, self._body_timeout_s)
        if training.status != "succeeded":
            raise RefusedError(409, f"job {training.job_id} has no adapter: {training.status}")
        if training.model != self._scorer.model:
            raise RefusedError(
                409, f"job {training.job_id} is of {training.model}, not of {self._scorer.model}"
            )
        await self._adopt(training)
        return json_answer(self._told(training))

    async def deactivate(self, _: web.Request) -> web.Response:
        """Have the model without any adapter."""
        await self._adopt(None)
        return json_answer({"adapter": None})

    async def _adopt(self, training: Training | None) -> None:
        async with self._scoring.turn(FIRST):
            await self._trainer.adopt(training)

    def _asked(self, request: web.Request) -> Training:
        job_id = request.match_info["job_id"]
        training = self._trainer.trainings.get(job_id)
        if training is None:
            raise RefusedError(404, "no such job; GET /v1/train lists them")
        return training

    def _told(self, training: Training) -> dict[str, Any]:
        has_adapter = training.status == "succeeded"
        return {
            "job_id": training.job_id,
            "status": training.status,
            "model": training.model,
            "samples": training.samples,
            "tokens": training.tokens,
            "epoch": training.epoch,
            "epochs": training.epochs,
            "loss": training.loss,
            "seconds": training.seconds,
            "error": training.error,
            "created": int(training.created),
            "adapter": str(self._trainer.adapter(training)) if has_adapter else None,
            "active": has_adapter and self._trainer.is_active(training),
        }

    def _check(self, samples: Sequence[Sample]) -> None:
        if not samples:
            raise RefusedError(400, "no samples", param="training_data.samples")
        vocabulary = self._scorer.vocabulary or math.inf
        longest = self._scorer.context_length or math.inf
        for number, sample in enumerate(samples):
            for name in sample.__struct_fields__:
                ids, where = getattr(sample, name), f"samples[{number}].{name}"
                if not ids:
                    raise _refused(where, "no token ids")
                if not 0 <= min(ids) <= max(ids) < vocabulary:
                    raise _refused(
                        where,
                        f"token ids {min(ids)} to {max(ids)}, of a vocabulary of {vocabulary}: "
                        "were they made with another tokenizer?",
                    )
        long = {it: len(each.ids) for it, each in enumerate(samples) if len(each.ids) > longest}
        if long:
            named = [f"{it} ({length} tokens)" for it, length in long.items()]
            more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
            raise RefusedError(
                400,
                f"samples {', '.join(named[:MOST_NAMED])}{more}: the model reads {longest}; leave "
                "them out: reject them in mindscore review, or set train.context to 'bare'",
                param=f"training_data.samples[{min(long)}]",
            )


def _refused(where: str, why: str) -> RefusedError:
    return RefusedError(400, f"{where}: {why}", param=f"training_data.{where}")


async def refuse_to_train(_: web.Request) -> web.Response:
    """What a server answers that does not train."""
    raise RefusedError(501, "this server does not train: start it with mindscore serve --train")
