"""Serves a scorer until the process is told to end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from mindhooks import Scorer
from mindscore._util.errors import UsageError
from mindscore.http.runner import ConnectionLimiter, Limits, make_runner, termination
from mindscore.serve.app import make_app

if TYPE_CHECKING:
    from mindscore.serve.trainer import Trainer


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, whom to serve, and how many may wait."""

    host: str
    port: int
    key: str | None
    queue_limit: int


async def serve(
    scorer: Scorer,
    address: Address,
    ready: Callable[[str], None],
    ending: Callable[[bool], None],
    limits: Limits = DEFAULT_LIMITS,
    trainer: Trainer | None = None,
) -> None:
    """Serve until SIGTERM or cancelled; with a ``trainer``, of the same scorer, train, too.

    ``ready`` is told the address once requests are answered; ``ending`` when it is to end:
    with true by SIGTERM, with false by a cancellation.

    Raises:
        ScorerError: the model cannot be loaded.
        UsageError: nobody can listen there, or another server trains already.
    """
    terminated = termination()
    serving = asyncio.create_task(_serve(scorer, address, ready, limits, trainer))
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
        # How they end has been told, or does not matter any more.
        await asyncio.gather(serving, ended, return_exceptions=True)


async def _serve(
    scorer: Scorer,
    address: Address,
    ready: Callable[[str], None],
    limits: Limits,
    trainer: Trainer | None,
) -> None:
    async with aclosing(scorer):
        # Loads the model: one that cannot be loaded is to be known of now.
        await scorer.tokenize("")
        app = make_app(scorer, key=address.key, queue_limit=address.queue_limit, trainer=trainer)
        gate = ConnectionLimiter(app, limits)
        runner = make_runner(app)
        try:
            await runner.setup()
            server = await _listen(gate, runner, address)
            try:
                # Of a name that has several addresses, with port 0 each has a port of its own.
                ready(f"http://{_authority(*server.sockets[0].getsockname()[:2])}/v1")
                await asyncio.Event().wait()
            finally:
                server.close()
        finally:
            await runner.cleanup()
            await gate.aclose()


async def _listen(
    gate: ConnectionLimiter, runner: web.AppRunner, address: Address
) -> asyncio.Server:
    try:
        return await gate.listen(runner, address.host, address.port)
    except (OSError, UnicodeError) as error:
        where = _authority(address.host, address.port)
        number = getattr(error, "errno", None) or 0
        # Of a name that is not known, the number is none of the system's.
        why = os.strerror(number) if number > 0 else str(error)
        raise UsageError(f"cannot listen on {where}: {why}; choose another --host or --port") from (
            error
        )


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
