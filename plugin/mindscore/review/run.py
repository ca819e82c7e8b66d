"""Serves the review page until the process is told to end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from mindscore.config import Settings
from mindscore.errors import UsageError
from mindscore.review.app import make_app
from mindscore.review.entrance import Entrance
from mindscore.review.running import DEFAULT_PACE, Pace
from mindscore.review.runs import Runs
from mindscore.serve.app import make_runner
from mindscore.serve.gate import Gate, Limits
from mindscore.serve.run import termination

HOST = "127.0.0.1"
LIMITS = Limits(connections=64)


async def serve_review(
    settings: Settings,
    runs: Runs,
    port: int,
    ready: Callable[[str], None],
    ending: Callable[[], None],
) -> None:
    """Serve until SIGTERM or cancelled.

    ``ready`` is told the address to open once requests are answered; ``ending`` that SIGTERM came.

    Raises:
        UsageError: nobody can listen at ``port``, or Jinja2 is not installed.
    """
    terminated = termination()
    async with served(settings, runs, port) as address:
        ready(address)
        await terminated.wait()
        ending()


@asynccontextmanager
async def served(
    settings: Settings, runs: Runs, port: int, pace: Pace = DEFAULT_PACE
) -> AsyncIterator[str]:
    """Serve while the context is open; the address to open.

    Raises:
        UsageError: nobody can listen at ``port``, or Jinja2 is not installed.
    """
    entrance = Entrance()
    app = make_app(settings, runs, entrance, pace)
    gate, runner = Gate(app, LIMITS), make_runner(app)
    async with runs:
        try:
            await runner.setup()
            server = await _listen(gate, runner, port)
            try:
                yield entrance.open(server.sockets[0].getsockname()[1])
            finally:
                server.close()
        finally:
            await runner.cleanup()
            await gate.aclose()


async def _listen(gate: Gate, runner: web.AppRunner, port: int) -> asyncio.Server:
    try:
        return await gate.listen(runner, HOST, port)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError(f"cannot listen on {HOST}:{port}: {why}; choose another --port") from error
