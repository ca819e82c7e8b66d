"""The server as an aiohttp application, and as a process that ends when it is told to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiohttp import web

from mindhooks import Scorer
from mindscore.http.access import guard
from mindscore.http.bodies import LARGE_AT_ONCE, LARGE_BODIES
from mindscore.http.refusals import errors_as_json
from mindscore.http.runner import listen, until_terminated
from mindscore.serve.endpoints import Endpoints
from mindscore.serve.training import TrainingEndpoints, refuse_to_train

if TYPE_CHECKING:
    from mindscore.serve.trainer import Trainer

DEFAULT_QUEUE = 64
MAX_BODY_BYTES = 64 * 2**20
"""Size of the largest body, that of ``POST /v1/train``."""
BODY_TIMEOUT_S = 60.0

PATHS = (
    "/health, /tokenize, /detokenize and, under /v1: /score, /completions, /models, /tokenize, "
    "/detokenize, /train, /adapter"
)

log = logging.getLogger("mindscore.serve")


def make_app(
    scorer: Scorer,
    *,
    key: str | None = None,
    queue_limit: int = DEFAULT_QUEUE,
    body_timeout_s: float = BODY_TIMEOUT_S,
    trainer: Trainer | None = None,
) -> web.Application:
    """Make the application that serves ``scorer``, which its caller closes.

    Without a ``key``, serve it on a loopback address only. A ``trainer``, of the same scorer,
    trains from the application's start to its end.
    """
    middlewares = [errors_as_json(log, PATHS), guard(key, "/health")]
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    app[LARGE_BODIES] = asyncio.Semaphore(LARGE_AT_ONCE)
    endpoints = Endpoints(scorer, queue_limit=queue_limit, body_timeout_s=body_timeout_s)
    app.add_routes(endpoints.routes())
    if trainer is None:
        app.router.add_route("*", "/v1/train{more:.*}", refuse_to_train)
        app.router.add_route("*", "/v1/adapter", refuse_to_train)
        return app

    async def training(_: web.Application) -> AsyncIterator[None]:
        async with trainer.running():
            yield

    app.add_routes(TrainingEndpoints(trainer, endpoints.scoring, body_timeout_s).routes())
    app.cleanup_ctx.append(training)
    return app


async def serve(
    scorer: Scorer,
    app: web.Application,
    host: str,
    port: int,
    *,
    ready: Callable[[str], None],
    ending: Callable[[bool], None],
) -> None:
    """Serve ``app`` until SIGTERM or cancelled; then close ``scorer``.

    ``ready`` gets the base URL once requests are answered; ``ending`` is called when the server is
    about to end, with true for SIGTERM and false for a cancellation.

    Raises:
        ScorerError: the model cannot be loaded.
        UsageError: the address cannot be listened on, or another server trains already.
    """
    await until_terminated(_serve(scorer, app, host, port, ready), ending)


async def _serve(
    scorer: Scorer, app: web.Application, host: str, port: int, ready: Callable[[str], None]
) -> None:
    async with aclosing(scorer):
        # Loads the model, so that one that cannot be loaded is known before anybody asks.
        await scorer.score([])
        async with listen(app, host, port) as listening:
            ready(f"{listening.address}/v1")
            await asyncio.Event().wait()
