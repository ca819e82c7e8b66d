"""The page as an aiohttp application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from mindscore.config import Settings
from mindscore.pages.inline import asset
from mindscore.review.deciding import Deciding
from mindscore.review.entrance import Entrance
from mindscore.review.failures import failures
from mindscore.review.forms import MOST_BYTES
from mindscore.review.reading import Reading
from mindscore.review.running import DEFAULT_PACE, Pace, Running
from mindscore.review.runs import Runs
from mindscore.review.views import Views

TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
ASSETS = {
    "theme.css": "mindscore.pages",
    "matrix.css": "mindscore.pages",
    "matrix.js": "mindscore.pages",
    "review.css": "mindscore.review",
    "review.js": "mindscore.review",
    "icon.svg": "mindscore.review",
}
"""What pages load, by name, and the package that has it."""


def make_app(
    settings: Settings, runs: Runs, entrance: Entrance, pace: Pace = DEFAULT_PACE
) -> web.Application:
    """The pages over one namespace of the store, for who comes in through ``entrance``.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    views = Views(settings.store.namespace)
    app = web.Application(
        middlewares=[entrance.middleware(), failures(views)], client_max_size=MOST_BYTES
    )
    for part in (
        Reading(settings, runs, views),
        Deciding(settings, runs, views),
        Running(runs, pace),
    ):
        app.add_routes(part.routes())
    for name, package in ASSETS.items():
        app.router.add_get(f"/assets/{name}", _asset(name, asset(name, package)))

    async def close(_: web.Application) -> None:
        runs.live.close()

    app.on_shutdown.append(close)
    return app


def _asset(name: str, text: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    kind = TYPES[name.rpartition(".")[2]]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind, charset="utf-8")

    return answer
