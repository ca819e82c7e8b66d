"""The endpoints that train: jobs, and the adapter that the model has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from mindscore.http.bodies import read_request
from mindscore.http.refusals import RefusedError, json_response
from mindscore.http.request_queue import RequestQueue
from mindscore.serve.requests import FIRST_PRIORITY
from mindscore.serve.trainer import JobState, Trainer
from mindscore.training.jobs import JOB_HEADER, MODEL_HEADER
from mindscore.training.lora.job import Sample

MAX_NAMED = 3
"""Samples that an error names: clients show only its beginning."""


class TrainingData(Struct):
    """The samples to learn."""

    samples: Annotated[list[Sample], Meta(min_length=1)]


class TrainRequest(Struct):
    """``POST /v1/train``."""

    training_data: TrainingData


class ActivateRequest(Struct):
    """``POST /v1/train/JOB/activate``; ``force``: even if the job has not passed its guard."""

    force: bool = False


class TrainingEndpoints:
    """The endpoints of one trainer; its model changes in turns of the queue ``scoring``."""

    def __init__(self, trainer: Trainer, scoring: RequestQueue, body_timeout_s: float) -> None:
        self._trainer = trainer
        self._scorer = trainer.scorer
        self._scoring = scoring
        self._body_timeout_s = body_timeout_s

    def routes(self) -> list[web.RouteDef]:
        """Return the method, path and handler of each endpoint."""
        return [
            web.post("/v1/train", self.train),
            web.get("/v1/train", self.jobs),
            web.get("/v1/train/{job_id}", self.job),
            web.delete("/v1/train/{job_id}", self.cancel),
            web.post("/v1/train/{job_id}/activate", self.activate),
            web.delete("/v1/adapter", self.deactivate),
        ]

    async def train(self, request: web.Request) -> web.Response:
        """Queue a job, or return the one of an ``Idempotency-Key`` that is known."""
        asked, own = unquote(request.headers.get(MODEL_HEADER, "")), self._scorer.model
        if asked not in ("", own):
            raise RefusedError(
                409,
                f"the responses are of the model {asked!r}, and this server trains {own!r}: have "
                "it serve that model, or choose the candidates of this one with --model",
            )
        body = await read_request(
            request, TrainRequest, self._body_timeout_s, request.client_max_size
        )
        samples = body.training_data.samples
        self._check(samples)
        state = await self._trainer.submit(samples, request.headers.get("Idempotency-Key"))
        return json_response({"job_id": state.job_id}, headers={JOB_HEADER: state.job_id})

    async def jobs(self, _: web.Request) -> web.Response:
        """List all jobs, oldest first."""
        return json_response({"jobs": list(map(self._document, self._trainer.jobs.values()))})

    async def job(self, request: web.Request) -> web.Response:
        """Return the state of one job."""
        return json_response(self._document(self._state(request)))

    async def cancel(self, request: web.Request) -> web.Response:
        """End a job that has not ended."""
        state = self._state(request)
        await self._trainer.cancel(state)
        return json_response(self._document(state))

    async def activate(self, request: web.Request) -> web.Response:
        """Give the model the adapter of a job, once requests before this one are answered."""
        state = self._state(request)
        asked = await read_request(request, ActivateRequest, self._body_timeout_s)
        if state.status != "succeeded":
            raise RefusedError(409, f"job {state.job_id} has no adapter: {state.status}")
        if state.model != self._scorer.model:
            raise RefusedError(
                409, f"job {state.job_id} is of {state.model}, not of {self._scorer.model}"
            )
        if state.guard is not None and not state.guard.passed and not asked.force:
            raise RefusedError(
                409,
                f"job {state.job_id} has not passed its guard: {state.guard.words}; its adapter "
                f'stays in {self._trainer.adapter(state)}: {{"force": true}} activates it all the '
                "same",
            )
        async with self._scoring.turn(FIRST_PRIORITY):
            await self._trainer.adopt(state)
        return json_response(self._document(state))

    async def deactivate(self, _: web.Request) -> web.Response:
        """Take the adapter from the model."""
        async with self._scoring.turn(FIRST_PRIORITY):
            await self._trainer.adopt(None)
        return json_response({"adapter": None})

    def _state(self, request: web.Request) -> JobState:
        state = self._trainer.jobs.get(request.match_info["job_id"])
        if state is None:
            raise RefusedError(404, "no such job; GET /v1/train lists them")
        return state

    def _document(self, state: JobState) -> dict[str, Any]:
        kept = msgspec.structs.asdict(state)
        del kept["key"], kept["digest"]
        adapter = self._trainer.adapter(state) if state.status == "succeeded" else None
        return kept | {
            "created": int(state.created),
            "adapter": adapter and str(adapter),
            "active": adapter is not None and adapter == self._scorer.adapter_folder,
        }

    def _check(self, samples: Sequence[Sample]) -> None:
        vocabulary = self._scorer.vocabulary or math.inf
        longest = self._scorer.context_length or math.inf
        for number, sample in enumerate(samples):
            for name in sample.__struct_fields__:
                where, largest = f"samples[{number}].{name}", max(getattr(sample, name))
                if largest >= vocabulary:
                    raise RefusedError(
                        400,
                        f"{where}: token id {largest}, of a vocabulary of {vocabulary}: was it "
                        "made with another tokenizer?",
                        param=f"training_data.{where}",
                    )
        long = {it: len(each.ids) for it, each in enumerate(samples) if len(each.ids) > longest}
        if long:
            named = [f"{it} ({length} tokens)" for it, length in long.items()]
            more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
            raise RefusedError(
                400,
                f"samples {', '.join(named[:MAX_NAMED])}{more}: the model reads {longest}; leave "
                "them out: reject them in mindscore review, or set train.context to 'bare'",
                param=f"training_data.samples[{min(long)}]",
            )


async def refuse_to_train(_: web.Request) -> web.Response:
    """Refuse, on a server that does not train."""
    raise RefusedError(501, "this server does not train: start it with mindscore serve --train")
