"""A model server for the tests of plugins and of hosts: real HTTP on loopback, no model."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from mindscore.http.refusals import json_response
from mindscore.http.runner import listen
from mindscore.scorers.toy import ToyScorer
from mindscore.serve.app import make_app

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

__all__ = ["Reply", "Request", "ScoreServer"]

PATIENCE_S = 10.0
"""Seconds that the server may take to start."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the server; ``body`` is the parsed JSON, or the bytes if it is not JSON."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """A scripted reply to one request; without a ``status``, the server's true answer.

    ``body`` is sent as it is if it is ``bytes``, and as JSON otherwise, after ``delay_s`` seconds.
    With ``hang_up`` the connection is closed without a reply.
    """

    status: int | None = None
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    hang_up: bool = False


class ScoreServer:
    """``mindscore serve`` over the toy scorer, on a free port of 127.0.0.1, in a thread.

    It answers by the toy's formula, unless ``script`` says otherwise. ``settings`` is the
    ``[server]`` table for a registry. Used as a context manager::

        with ScoreServer() as server:
            server.script(Reply(503), Reply(delay_s=2))
            async with Registry(mind, {"server": server.settings}) as registry:
                ...
            assert [request.path for request in server.requests] == ["/v1/score", "/v1/score"]
    """

    url: str
    """The address, with ``/v1`` at its end, once the context is entered."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        """Every request so far, in order."""
        self._script: deque[Reply] = deque()
        self._address: Future[str] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    @property
    def settings(self) -> dict[str, Any]:
        """The ``[server]`` table of a ``score`` scorer that sends no key and does not retry."""
        return {
            "scorer": "score",
            "base_url": self.url,
            "model": ToyScorer.model,
            "api_key_env": "",
            "max_attempts": 1,
        }

    def script(self, *replies: Reply) -> None:
        """Script the replies to the next requests; later ones get true answers again."""
        self._script.extend(replies)

    def __enter__(self) -> ScoreServer:
        self._thread.start()
        self.url = self._address.result(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
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
                # aiohttp requires a response, though nobody receives it.
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
