"""Serve an aiohttp application on limited connections until the process is told to end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aiohttp import StreamReader, web

from mindscore._util.errors import UsageError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

SHUTDOWN_S = 1.0
"""Seconds that requests may go on once the server is to end."""

SWEEPS = 4
"""Times that connections are looked at within the shortest limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The number of connections, of all and of one address, and the seconds each is waited for.

    ``head_s``: for the whole head of a first request. ``idle_s``: for the head of a later one, and
    for the client to take some of a response.
    """

    connections: int = 256
    connections_per_address: int = 128
    head_s: float = 10.0
    idle_s: float = 75.0


DEFAULT_LIMITS = Limits()


@asynccontextmanager
async def listen(
    app: web.Application,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    limits: Limits = DEFAULT_LIMITS,
    options: str = "--host or --port",
) -> AsyncIterator[ConnectionLimiter]:
    """Serve ``app`` while the context is open; every connection is closed at its end.

    Port 0 is a free one. ``options`` are those of the command line that choose another address.

    Raises:
        UsageError: the address cannot be listened on.
    """
    limiter = ConnectionLimiter(app, limits)
    try:
        await limiter.runner.setup()
        try:
            await limiter.start(host, port)
        except (OSError, UnicodeError) as error:
            number = getattr(error, "errno", None) or 0
            # An unknown host has a number that is not of the system's errors.
            why = os.strerror(number) if number > 0 else str(error)
            raise UsageError(
                f"cannot listen on {_authority(host, port)}: {why}; choose another {options}"
            ) from error
        try:
            yield limiter
        finally:
            await limiter.stop()
    finally:
        await limiter.runner.cleanup()
        limiter.abort()


class ConnectionLimiter:
    """The connections of one application: their number, and how long each is waited for.

    When there is no room for another, or one address has too many, the one is closed that has kept
    the server waiting longest, of the address with the most: so slow clients keep nobody out. A
    request that is being answered is left alone, once its body is there.
    aiohttp itself limits neither their number, nor how long the head of a first request takes, nor
    how long a response waits for its client.
    """

    def __init__(self, app: web.Application, limits: Limits) -> None:
        app.middlewares.insert(0, self._watch)
        self.runner = _make_runner(app)
        self._limits = limits
        self._room = limits.connections
        self._waits: dict[web.RequestHandler, _Wait] = {}
        self._left: list[asyncio.Transport] = []

    @property
    def address(self) -> str:
        """The address, ``http://HOST:PORT``; of a name with several addresses, the first."""
        return f"http://{_authority(*self._server.sockets[0].getsockname()[:2])}"

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._open())

    async def start(self, host: str, port: int) -> None:
        """Listen, once ``runner`` has been set up.

        Raises:
            OSError, UnicodeError: the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, host, port)
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Accept no more connections; ``runner`` can be cleaned up then."""
        self._room = 0
        self._server.close()
        self._sweeping.cancel()
        # Meanwhile, connections accepted in the last moment get their transports.
        await asyncio.wait({self._sweeping})
        self._left = list(self._open().values())

    def abort(self) -> None:
        """Close what is still open once ``runner`` was cleaned up, whatever is still to be sent."""
        for transport in self._left:
            transport.abort()

    def _open(self) -> dict[web.RequestHandler, asyncio.Transport]:
        handlers = self.runner.server.connections if self.runner.server is not None else []
        transports = {it: it.transport for it in handlers}
        return {it: each for it, each in transports.items() if each and not each.is_closing()}

    def _accept(self) -> asyncio.Protocol:
        # Those that are accepted in the same turn of the loop are not counted yet.
        is_full = self.connections >= self._room
        if self.runner.server is None or (is_full and not self._make_room()):
            return _Refused()
        handler = self.runner.server()
        self._waits[handler] = _Wait(time.monotonic() + self._limits.head_s)
        # Only after two turns of the loop it has a transport, and so an address.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._limit_addresses)
        return handler

    def _make_room(self) -> bool:
        return self._room > 0 and any(map(self._close_longest, self._by_address()))

    def _limit_addresses(self) -> None:
        for handlers in self._by_address():
            for _ in range(len(handlers) - self._limits.connections_per_address):
                self._close_longest(handlers)

    def _by_address(self) -> list[list[web.RequestHandler]]:
        """Return the open connections of each address, those of the one with the most first."""
        found: dict[str, list[web.RequestHandler]] = defaultdict(list)
        for handler, transport in self._open().items():
            found[_client(transport.get_extra_info("peername"))].append(handler)
        return sorted(found.values(), key=len, reverse=True)

    def _close_longest(self, handlers: Sequence[web.RequestHandler]) -> bool:
        """Close the one that has kept the server waiting longest; return whether there is one."""
        still = self._open()
        waits = {it: self._waits[it] for it in handlers if it in self._waits and it in still}
        waiting = [it for it, wait in waits.items() if wait.is_for_client]
        if not waiting:
            return False
        still[min(waiting, key=lambda it: waits[it].since)].abort()
        return True

    @web.middleware
    async def _watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._waits[request.protocol] = _Wait(math.inf, body=request.content)
        try:
            return await handler(request)
        finally:
            self._waits[request.protocol] = _Wait(time.monotonic() + self._limits.idle_s)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(self._limits.head_s, self._limits.idle_s) / SWEEPS)
            now, before = time.monotonic(), self._waits
            late = now + self._limits.head_s
            self._waits = {it: before.get(it) or _Wait(late) for it in self._open()}
            for handler, transport in self._open().items():
                wait, left = self._waits[handler], transport.get_write_buffer_size()
                if wait.late <= now and 0 < left < wait.left:
                    wait.late, wait.left = now + self._limits.idle_s, left
                elif wait.late <= now:
                    transport.abort()


@dataclass(slots=True)
class _Wait:
    """The time for which a connection is waited for.

    ``late`` is the time from which it is late, ``left`` the bytes that it last had left to take,
    ``body`` that of the request that is being answered.
    """

    late: float
    left: float = math.inf
    body: StreamReader | None = None
    since: float = field(default_factory=time.monotonic)

    @property
    def is_for_client(self) -> bool:
        """True where the client is to send something, or to take it."""
        return self.body is None or not self.body.is_eof()


class _Refused(asyncio.Protocol):
    """A connection for which there is no room."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.abort()


@lru_cache(1024)
def _client(peer: object) -> str:
    """Return what counts as one client: an IPv4 address, or the network of an IPv6 one."""
    host = peer[0] if isinstance(peer, tuple) else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _make_runner(app: web.Application) -> web.AppRunner:
    """Make a runner that logs no request, and cancels one whose client has gone."""
    quiet = logging.getLogger("mindscore.serve.http")
    # aiohttp logs malformed requests with what is wrong in them, which may be a key.
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


async def until_terminated(work: Coroutine[Any, Any, None], ending: Callable[[bool], None]) -> None:
    """Run ``work`` until SIGTERM, or until this is cancelled.

    ``ending`` is called when that comes before the end, with true for SIGTERM and false for a
    cancellation. What ``work`` raises by itself is raised.
    """
    terminated = termination()
    working = asyncio.create_task(work)
    ended = asyncio.create_task(terminated.wait())
    try:
        await asyncio.wait({working, ended}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        if not working.done():
            ending(terminated.is_set())
        for task in (working, ended):
            task.cancel()
        # An error on the way out changes nothing.
        await asyncio.gather(working, ended, return_exceptions=True)


def termination() -> asyncio.Event:
    """Return an event that SIGTERM sets, from now on, in the running loop."""
    terminated = asyncio.Event()
    # Where there is no SIGTERM, there is Ctrl-C.
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    return terminated
