"""The server as an aiohttp application, and as a process that ends when it is told to."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiohttp import web

from mindhooks import Scorer
from mindscore.http.runner import listen, termination
from mindscore.serve.endpoints import Endpoints
from mindscore.serve.requests import LARGE_AT_ONCE, LARGE_BODIES, RefusedError, errors_as_json
from mindscore.serve.training import TrainingEndpoints, refuse_to_train

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from mindscore.serve.trainer import Trainer

DEFAULT_QUEUE = 64
MAX_BODY_BYTES = 64 * 2**20
"""Size of the largest body, that of ``POST /v1/train``."""
BODY_TIMEOUT_S = 60.0

_OWN_HOST = re.compile(
    r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE
)


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
    app = web.Application(middlewares=[errors_as_json, _guard(key)], client_max_size=MAX_BODY_BYTES)
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


def _guard(key: str | None) -> Middleware:
    """Return the middleware that asks for the key everywhere but at ``/health``.

    Without a key, the server is on a loopback address. A ``Host`` that does not name this machine
    is then a web page's own name that resolves to it (DNS rebinding).
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
    terminated = termination()
    serving = asyncio.create_task(_serve(scorer, app, host, port, ready))
    ended = asyncio.create_task(terminated.wait())
    try:
        await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        if not serving.done():
            ending(terminated.is_set())
        for task in (serving, ended):
            task.cancel()
        # An error on the way out changes nothing.
        await asyncio.gather(serving, ended, return_exceptions=True)


async def _serve(
    scorer: Scorer, app: web.Application, host: str, port: int, ready: Callable[[str], None]
) -> None:
    async with aclosing(scorer):
        # Loads the model, so that one that cannot be loaded is known before anybody asks.
        await scorer.score([])
        async with listen(app, host, port) as listening:
            ready(f"{listening.address}/v1")
            await asyncio.Event().wait()
