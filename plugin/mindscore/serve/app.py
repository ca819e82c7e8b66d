"""The server as an aiohttp application."""

from __future__ import annotations

import hmac
import re
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from mindhooks import Scorer
from mindscore.serve.endpoints import Endpoints
from mindscore.serve.requests import RefusedError, errors_as_json
from mindscore.serve.training_endpoints import TrainingEndpoints, refuse_to_train

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from mindscore.serve.trainer import Trainer


_OWN_HOST = re.compile(
    r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE
)


def guard(key: str | None) -> Middleware:
    """Asks for the key everywhere but at ``/health``.

    Without a key, the server is on a loopback address, and a name in ``Host`` that is not this
    machine's is a web page's that had its own name resolve to it (DNS rebinding).
    """
    check = _require_own_host if key is None else _require(key)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        check(request)
        return await handler(request)

    return guarded


def _require_own_host(request: web.Request) -> None:
    if not _OWN_HOST.fullmatch(request.headers.get("Host", "")):
        raise RefusedError(
            403, "the Host header does not name this machine: ask for 127.0.0.1, or set a key"
        )


def _require(key: str) -> Callable[[web.Request], None]:
    expected = key.encode()

    def check(request: web.Request) -> None:
        if request.path == "/health":
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected)
        if scheme.lower() != "bearer" or not same:
            raise RefusedError(
                401,
                "expected the server's key: Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


DEFAULT_QUEUE = 64
MOST_BYTES = 64 * 2**20
BODY_TIMEOUT_S = 60.0


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
