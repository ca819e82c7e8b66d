"""Send what was accepted to the trainer that the settings name."""

from __future__ import annotations

import asyncio

from aiohttp import web

from mindhooks import SinkError
from mindscore._util.errors import ConfigError, format_error
from mindscore.config.settings import Settings
from mindscore.review.decisions import PATH
from mindscore.review.runs import Runs
from mindscore.review.web import PageRefusedError, Views, address, read_form, see_other
from mindscore.store import Reviews
from mindscore.training.outbox import Selection, Sent, open_outbox, select, tokens_of


class Sending:
    """The page that says what would be sent and where to, and the request that sends it."""

    def __init__(self, settings: Settings, runs: Runs, views: Views) -> None:
        self._settings = settings
        self._reviews = Reviews(settings.store)
        self._tables = runs.tables
        self._views = views
        self._sent: Sent | None = None
        self._under_way: asyncio.Task[Sent | None] | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the page and its form."""
        return [web.get("/send", self._show), web.post("/send", self._send)]

    async def _show(self, request: web.Request) -> web.Response:
        model, key = (request.query.get(name, "") for name in ("model", "sent"))
        selection = await self._selection(model)
        try:
            async with open_outbox(self._tables) as outbox:
                division = await outbox.divide(selection.samples)
        except (ConfigError, SinkError) as error:
            raise PageRefusedError(409, f"There is no trainer: {format_error(error)}") from None
        values = {
            "model": model,
            "selection": selection,
            "division": division,
            "tokens": tokens_of(division.samples),
            "name": outbox.name,
            "destination": outbox.destination,
            "context": self._settings.train.context,
            "sent": self._sent if self._sent and self._sent.key == key else None,
        }
        return await self._views.show("send.html", PATH, values)

    async def _send(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        if self._under_way is not None and not self._under_way.done():
            raise PageRefusedError(409, "They are being sent already: wait for that.")
        # It goes on where the browser does not wait.
        self._under_way = asyncio.create_task(self._handed_over(form["model"]), name="review: send")
        self._sent = await asyncio.shield(self._under_way)
        if self._sent is None:
            raise PageRefusedError(409, "There is nothing to send: it was sent meanwhile.")
        return see_other(address("/send", model=form["model"], sent=self._sent.key))

    async def _handed_over(self, model: str) -> Sent | None:
        async with open_outbox(self._tables) as outbox:
            return await outbox.send((await self._selection(model)).samples)

    async def _selection(self, model: str) -> Selection:
        """Return the accepted candidates of a model as samples."""
        queue = await self._reviews.queue(model)
        return select(queue, self._settings, unreviewed=False)
