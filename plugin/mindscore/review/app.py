"""Serve the review page until the process is told to end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from mindscore.config.settings import Settings
from mindscore.http.runner import Limits, listen, termination
from mindscore.pages.environment import asset
from mindscore.review.archive import ArchivePages
from mindscore.review.decisions import Deciding
from mindscore.review.leaning import ResponsePages
from mindscore.review.ledger import LedgerPage
from mindscore.review.reading import ReadingPages
from mindscore.review.runs import Runs
from mindscore.review.sending import Sending
from mindscore.review.stream import DEFAULT_PACE, Running, StreamPace
from mindscore.review.web import MOST_BYTES, SessionAuth, Views, failures

TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
ASSETS = {
    "theme.css": "mindscore.pages",
    "archive.css": "mindscore.pages",
    "matrix.css": "mindscore.pages",
    "matrix.js": "mindscore.pages",
    "review.css": "mindscore.review",
    "review.js": "mindscore.review",
    "icon.svg": "mindscore.review",
}
"""Files that pages load, with the package of each."""


def make_app(
    settings: Settings, runs: Runs, entrance: SessionAuth, pace: StreamPace = DEFAULT_PACE
) -> web.Application:
    """Make the application over one namespace of the store; ``entrance`` authenticates.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    views = Views(settings.store)
    app = web.Application(
        middlewares=[entrance.middleware(), failures(views)], client_max_size=MOST_BYTES
    )
    archive = ArchivePages(settings, views)
    for part in (
        ReadingPages(settings, runs, views),
        ResponsePages(settings.store, runs, views),
        archive,
        LedgerPage(settings.store, views),
        Deciding(settings, runs, views),
        Sending(settings, runs, views),
        Running(runs, pace),
    ):
        app.add_routes(part.routes())
    for name, package in ASSETS.items():
        app.router.add_get(f"/assets/{name}", _asset(name, asset(name, package)))

    async def close(_: web.Application) -> None:
        runs.live.close()
        await archive.aclose()

    app.on_shutdown.append(close)
    return app


def _asset(name: str, text: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    kind = TYPES[name.rpartition(".")[2]]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind, charset="utf-8")

    return answer


HOST = "127.0.0.1"
LIMITS = Limits(connections=64)


async def serve_review(
    settings: Settings,
    runs: Runs,
    port: int,
    ready: Callable[[str], None],
    ending: Callable[[], None],
) -> None:
    """Serve until SIGTERM or cancellation.

    ``ready`` is called with the address to open, ``ending`` after SIGTERM.

    Raises:
        UsageError: the port cannot be listened on, or Jinja2 is not installed.
    """
    terminated = termination()
    async with served(settings, runs, port) as address:
        ready(address)
        await terminated.wait()
        ending()


@asynccontextmanager
async def served(
    settings: Settings, runs: Runs, port: int, pace: StreamPace = DEFAULT_PACE
) -> AsyncIterator[str]:
    """Serve while the context is open, and yield the address to open.

    Raises:
        UsageError: the port cannot be listened on, or Jinja2 is not installed.
    """
    entrance = SessionAuth()
    app = make_app(settings, runs, entrance, pace)
    async with runs, listen(app, HOST, port, limits=LIMITS, options="--port") as listening:
        yield entrance.open(int(listening.address.rpartition(":")[2]))
