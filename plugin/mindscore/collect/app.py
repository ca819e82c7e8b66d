"""The collector as an aiohttp application, and as a process that ends when it is told to."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from aiohttp import web
from filelock import FileLock, Timeout

from mindscore._util.errors import StoreError, UsageError
from mindscore._util.files import make_file
from mindscore.collect.endpoints import CollectEndpoints, errors_of_otlp
from mindscore.collect.otlp import MAX_BYTES
from mindscore.collect.scoring import TurnScoring
from mindscore.http.access import guard
from mindscore.http.bodies import LARGE_AT_ONCE, LARGE_BODIES
from mindscore.http.refusals import errors_as_json
from mindscore.http.runner import listen, until_terminated

PATHS = "/v1/traces, /v1/turns, /v1/health"

HEALTH = "/v1/health"

log = logging.getLogger("mindscore.collect")


def make_app(endpoints: CollectEndpoints, key: str | None = None) -> web.Application:
    """Make the application; without a ``key``, serve it on a loopback address only."""
    middlewares = [errors_as_json(log, PATHS), errors_of_otlp(), guard(key, HEALTH)]
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BYTES)
    app[LARGE_BODIES] = asyncio.Semaphore(LARGE_AT_ONCE)
    app.add_routes(endpoints.routes())
    return app


def queue_file(namespace: str) -> Path:
    """Return the file of the turns of one agent that wait, in the user's data folder."""
    import platformdirs

    is_plain = re.fullmatch(r"[a-z0-9_-]{1,64}", namespace)
    name = namespace if is_plain else sha256(namespace.encode()).hexdigest()[:16]
    return platformdirs.user_data_path("mindscore") / "collect" / f"{name}.sqlite3"


@contextmanager
def only_collector(file: Path) -> Iterator[None]:
    """Be the only process that scores what waits in ``file``, for the ``with`` block.

    Raises:
        UsageError: another one does.
        StoreError: the lock cannot be made.
    """
    lock = file.with_suffix(".lock")
    try:
        make_file(lock)
        held = FileLock(lock, timeout=0, mode=0o600).acquire()
    except Timeout:
        raise UsageError(
            f"another mindscore collect works on {file}: end it, or set another store.namespace"
        ) from None
    except OSError as error:
        raise StoreError(f"the lock {lock}: {error}") from error
    with held:
        yield


async def collect(
    scoring: TurnScoring,
    app: web.Application,
    host: str,
    port: int,
    *,
    ready: Callable[[str], None],
    ending: Callable[[bool], None],
) -> None:
    """Take turns and score them until SIGTERM or cancelled; then close ``scoring``.

    ``ready`` and ``ending`` are as those of ``mindscore.serve.app.serve``.

    Raises:
        UsageError: the address cannot be listened on.
    """
    await until_terminated(_collect(scoring, app, host, port, ready), ending)


async def _collect(
    scoring: TurnScoring, app: web.Application, host: str, port: int, ready: Callable[[str], None]
) -> None:
    try:
        async with listen(app, host, port) as listening:
            ready(listening.address)
            await scoring.run()
    finally:
        await scoring.aclose()
