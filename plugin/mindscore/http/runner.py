"""The connections: no more than so many, and none that keeps the server waiting."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

SHUTDOWN_S = 1.0
"""How long requests may go on once the server is to end."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections there may be, and how long each may keep the server waiting.

    ``head_s``: from its beginning, or that of a later request, until the whole head of a request
    is there. ``idle_s``: between requests, and while nothing of an answer is taken.
    """

    connections: int = 256
    head_s: float = 10.0
    idle_s: float = 75.0


class ConnectionLimiter:
    """Lets connections in to an application: to be made before its runner is.

    aiohttp itself limits neither their number nor how long the first request takes to arrive.
    """

    def __init__(self, app: web.Application, limits: Limits) -> None:
        self._limits = limits
        self._open: dict[asyncio.BaseProtocol, _Connection] = {}
        app.middlewares.insert(0, self._watch)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def listen(self, runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
        """Listen, for the application of ``runner``, which has been set up.

        Raises:
            OSError: nobody can listen there.
        """

        def connection() -> asyncio.Protocol:
            if len(self._open) >= self._limits.connections or runner.server is None:
                return _Refused()
            handler = runner.server()
            self._open[handler] = _Connection(handler, self._limits, self._open)
            return self._open[handler]

        return await asyncio.get_running_loop().create_server(connection, host, port)

    async def aclose(self) -> None:
        """End what is open still, once the server and its runner have been closed."""
        # Those that were let in in the last moment have their transports then.
        await asyncio.sleep(0)
        for connection in list(self._open.values()):
            connection.end()
        await asyncio.sleep(0)

    @web.middleware
    async def _watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self._open.get(request.protocol)
        if connection is None:
            # It has gone meanwhile.
            return await handler(request)
        connection.has_asked()
        try:
            return await handler(request)
        finally:
            connection.is_answered()


class _Refused(asyncio.Protocol):
    """A connection for which there is no room."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.abort()


class _Connection(asyncio.Protocol):
    """Passes on what happens on a connection to ``handler``, and ends it when it is late."""

    def __init__(
        self,
        handler: asyncio.Protocol,
        limits: Limits,
        others: dict[asyncio.BaseProtocol, _Connection],
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._others = others
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_idle = False
        self._untaken = math.inf

    def has_asked(self) -> None:
        """The whole head of a request is there."""
        self._is_idle = False
        self._stop_waiting()

    def is_answered(self) -> None:
        """The answer is about to be written."""
        self._is_idle = True
        self._untaken = math.inf
        self._wait(self._limits.idle_s)

    def end(self) -> None:
        """Close it now, whatever is still to be written."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._wait(self._limits.head_s)
        self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._is_idle:
            self._is_idle = False
            self._wait(self._limits.head_s)
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        return self._handler.eof_received()

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._transport = None
        del self._others[self._handler]
        self._handler.connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        if self._transport is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._is_late, self._transport, seconds)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_late(self, transport: asyncio.Transport, waited_s: float) -> None:
        left = transport.get_write_buffer_size()
        if 0 < left < self._untaken:
            self._untaken = left
            self._wait(waited_s)
        else:
            transport.abort()


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


def termination() -> asyncio.Event:
    """An event that SIGTERM sets, from now on, in the running loop."""
    terminated = asyncio.Event()
    # Where there is no SIGTERM, there is Ctrl-C.
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    return terminated
