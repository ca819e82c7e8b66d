"""A model server for the tests of plugins and of hosts: real HTTP on loopback, no model."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from mindscore.http.runner import listen
from mindscore.scorers.toy import ToyScorer
from mindscore.serve.app import make_app
from mindscore.serve.requests import json_response

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

__all__ = ["Reply", "Request", "ScoreServer"]

PATIENCE_S = 10.0
"""How long the server may take to start."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the server was asked; ``body`` is the parsed JSON, or the bytes where it is none."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server does with one request; without a ``status`` it answers the truth.

    ``body`` is sent as it is if it is ``bytes``, and as JSON otherwise. ``delay_s`` passes before
    the answer; with ``hang_up`` the connection is closed instead of one.
    """

    status: int | None = None
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    hang_up: bool = False


class ScoreServer:
    """``mindscore serve`` over the toy scorer, on a free port of 127.0.0.1, in a thread.

    It answers the truth, by the toy's formula, unless it was told otherwise by ``script``.
    ``settings`` is the ``[server]`` table of a registry that is to use it. Used as a context
    manager::

        with ScoreServer() as server:
            server.script(Reply(503), Reply(delay_s=2))
            async with Registry(mind, {"server": server.settings}) as registry:
                ...
            assert [request.path for request in server.requests] == ["/v1/score", "/v1/score"]
    """

    url: str
    """With ``/v1`` at its end; known once the context is entered."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        """Every request so far, in order."""
        self._script: deque[Reply] = deque()
        self._address: Future[str] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    @property
    def settings(self) -> dict[str, Any]:
        """Of the ``score`` scorer: no key is sent, and what fails is not tried again."""
        return {
            "scorer": "score",
            "base_url": self.url,
            "model": ToyScorer.model,
            "api_key_env": "",
            "max_attempts": 1,
        }

    def script(self, *replies: Reply) -> None:
        """Say what becomes of the next requests, one reply each; after them, the truth again."""
        self._script.extend(replies)

    def __enter__(self) -> ScoreServer:
        self._thread.start()
        self.url = self._address.result(PATIENCE_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        app = make_app(ToyScorer())
        app.middlewares.insert(0, self._middleware())
        async with listen(app) as listening:
            self._address.set_result(f"{listening.address}/v1")
            await self._ended.wait()

    def _middleware(self) -> Any:
        @web.middleware
        async def scripted(request: web.Request, handler: Handler) -> web.StreamResponse:
            raw = await request.read()
            self.requests.append(Request(request.path, request.headers.copy(), _parsed(raw)))
            reply = self._script.popleft() if self._script else Reply()
            await asyncio.sleep(reply.delay_s)
            if reply.hang_up:
                # Nobody hears the response that aiohttp wants nevertheless.
                _close(request)
                return web.Response()
            return await handler(request) if reply.status is None else _response(reply)

        return scripted


def _parsed(raw: bytes) -> Any:
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(raw)
    return raw


def _close(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()


def _response(reply: Reply) -> web.Response:
    status = reply.status or 200
    if isinstance(reply.body, bytes):
        return web.Response(status=status, body=reply.body, headers=reply.headers)
    return json_response(reply.body, status, reply.headers)
