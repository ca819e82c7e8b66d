"""A gateway before a model server that offers some of its paths only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from aiohttp import ClientSession, ClientTimeout, web

_HOP = ("host", "content-length", "transfer-encoding", "content-encoding", "connection")
"""Headers that are of one connection, or of a body that is encoded."""


@contextmanager
def gateway(url: str, hidden: Collection[str]) -> Iterator[str]:
    """Yield the address, with ``/v1``, of a gateway to ``url`` that answers 404 at ``hidden``."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    serving = _Serving(url.removesuffix("/v1"), hidden)
    try:
        yield asyncio.run_coroutine_threadsafe(serving.start(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(serving.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Serving:
    """Passes requests on, and ends those whose client is gone."""

    def __init__(self, root: str, hidden: Collection[str]) -> None:
        self._root = root
        self._hidden = hidden

    async def start(self) -> str:
        self._session = ClientSession(timeout=ClientTimeout(None))
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path in self._hidden:
            raise web.HTTPNotFound
        headers = {name: it for name, it in request.headers.items() if name.lower() not in _HOP}
        asked = self._session.request(
            request.method, self._root + request.path_qs, data=await request.read(), headers=headers
        )
        async with asked as answer:
            given = {name: it for name, it in answer.headers.items() if name.lower() not in _HOP}
            return web.Response(body=await answer.read(), status=answer.status, headers=given)
