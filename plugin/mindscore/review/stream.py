"""The requests that start and stop runs, and the streams of their events."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from mindscore.review.runs import COMMANDS, Live, RunEvent, Runs
from mindscore.review.web import HEADERS, PageRefusedError, read_form, see_other

RETRY_MS = 2000
"""Milliseconds after which a browser reconnects."""


@dataclass(frozen=True, slots=True)
class StreamPace:
    """The timing of event streams, in seconds.

    ``together``: events within this time are sent together; ``heartbeat``: longest silence;
    ``taken``: time that a follower may take to read, before it is dropped.
    """

    together: float = 0.1
    heartbeat: float = 15.0
    taken: float = 10.0


DEFAULT_PACE = StreamPace()


class Running:
    """The requests that start runs and follow their events."""

    def __init__(self, runs: Runs, pace: StreamPace = DEFAULT_PACE) -> None:
        self._runs = runs
        self._pace = pace

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the buttons and the events."""
        return [
            web.post("/run", self._run),
            web.post("/stop", self._stop),
            web.get("/events", self._events),
        ]

    async def _stop(self, request: web.Request) -> web.Response:
        await read_form(request)
        self._runs.stop()
        return see_other("/")

    async def _run(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        command = form.get("command", "")
        if self._runs.transcript is None:
            raise PageRefusedError(409, "There is no conversation: mindscore review TRANSCRIPT.")
        if command not in list(COMMANDS):
            raise PageRefusedError(400, "The form does not say which command.")
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
    """Return the id of the last event that the follower has received on an earlier connection."""
    given = request.headers.get("Last-Event-ID", request.query.get("after", ""))
    return int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0


def _written(event: RunEvent) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"
