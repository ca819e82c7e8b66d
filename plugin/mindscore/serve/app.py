"""The server as an aiohttp application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from mindhooks import Scorer
from mindscore.serve.answers import errors_as_json
from mindscore.serve.endpoints import Endpoints
from mindscore.serve.guard import guard
from mindscore.serve.training_endpoints import TrainingEndpoints, refuse_to_train

if TYPE_CHECKING:
    from mindscore.serve.trainer import Trainer

DEFAULT_QUEUE = 64
MOST_BYTES = 64 * 2**20
BODY_TIMEOUT_S = 60.0
SHUTDOWN_S = 1.0
"""How long requests may go on once the server is to end."""


def make_app(
    scorer: Scorer,
    *,
    key: str | None = None,
    queue_limit: int = DEFAULT_QUEUE,
    body_timeout_s: float = BODY_TIMEOUT_S,
    trainer: Trainer | None = None,
) -> web.Application:
    """The endpoints over ``scorer``, which stays the caller's to close.

    Without a ``key`` it is to be served on a loopback address only. ``trainer`` is of the same
    scorer, and trains from the application's start to its end.
    """
    app = web.Application(
        middlewares=[errors_as_json, guard(key)],
        client_max_size=MOST_BYTES,
    )
    endpoints = Endpoints(scorer, queue_limit=queue_limit, body_timeout_s=body_timeout_s)
    app.add_routes(endpoints.routes())
    if trainer is None:
        app.router.add_route("*", "/v1/train{more:.*}", refuse_to_train)
        app.router.add_route("*", "/v1/adapter", refuse_to_train)
    else:
        training = TrainingEndpoints(trainer, endpoints.scoring, body_timeout_s)
        app.add_routes(training.routes())
        app.cleanup_ctx.append(_training(trainer))
    return app


def _training(trainer: Trainer) -> Callable[[web.Application], AsyncIterator[None]]:
    async def training(_: web.Application) -> AsyncIterator[None]:
        async with trainer.running():
            yield

    return training


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner that logs no request, and cancels one whose client has gone."""
    quiet = logging.getLogger("mindscore.serve.http")
    # aiohttp logs malformed requests with what is wrong in them: a key, it may be.
    quiet.disabled = True
    return web.AppRunner(
        app,
        access_log=None,
        logger=quiet,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_S,
        # It would inflate a body before its size is looked at.
        auto_decompress=False,
    )
