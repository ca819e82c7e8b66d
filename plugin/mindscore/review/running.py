"""Runs from the page: buttons that start them, and events that tell of them."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from mindscore.review.entrance import HEADERS
from mindscore.review.failures import RefusedError
from mindscore.review.forms import read_form
from mindscore.review.live import Event, Live
from mindscore.review.runs import COMMANDS, Runs
from mindscore.review.views import see_other

RETRY_MS = 2000
"""After so long a browser follows again that has lost its connection."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How followers are told, in seconds.

    ``together``: what happens within so long is told at once; ``heartbeat``: so often they hear
    that all is well; ``taken``: so long each may take to read what it is told, or it is dropped.
    """

    together: float = 0.1
    heartbeat: float = 15.0
    taken: float = 10.0


DEFAULT_PACE = Pace()


class Running:
    """Answers for the buttons, and for who follows what they start."""

    def __init__(self, runs: Runs, pace: Pace = DEFAULT_PACE) -> None:
        self._runs = runs
        self._pace = pace

    def routes(self) -> list[web.RouteDef]:
        """What is answered."""
        return [web.post("/run", self._run), web.get("/events", self._events)]

    async def _run(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        command = form.get("command", "")
        if self._runs.transcript is None:
            raise RefusedError(409, "There is no conversation: mindscore review TRANSCRIPT.")
        if command not in list(COMMANDS):
            raise RefusedError(400, "The form does not say which command.")
        self._runs.start(command, alternates="alternates" in form)
        return see_other("/")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        headers = {**HEADERS, "Content-Type": "text/event-stream; charset=utf-8"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            await self._follow(response, self._runs.live, _seen(request))
        except (TimeoutError, ConnectionResetError):
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _follow(self, response: web.StreamResponse, live: Live, last: int) -> None:
        words = f"retry: {RETRY_MS}\n\n"
        while not live.closed:
            words += "".join(_written(event) for event in live.since(last))
            last = live.last
            async with asyncio.timeout(self._pace.taken):
                await response.write(words.encode())
            await asyncio.sleep(self._pace.together)
            words = ": still here\n\n"
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.heartbeat):
                    await live.news(last)
                    words = ""


def _seen(request: web.Request) -> int:
    """The last event that the follower was told of, on a connection that it lost or let go of."""
    given = request.headers.get("Last-Event-ID", request.query.get("after", ""))
    return int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0


def _written(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"
