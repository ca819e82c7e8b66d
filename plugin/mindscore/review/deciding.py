"""The page of candidates: what is shown of each, and what is decided about it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import get_args

from aiohttp import web

from mindscore.config import Settings
from mindscore.review.answers import AnswerError, edited_ids, unusable_alternate
from mindscore.review.failures import RefusedError
from mindscore.review.forms import read_form
from mindscore.review.queue import STATES, Entry, Queue, State
from mindscore.review.reading import Models
from mindscore.review.runs import Runs
from mindscore.review.views import Views, address, see_other
from mindscore.store import History, Review, Reviews
from mindscore.store.reviews import Answer

PATH = "/candidates"
GONE = "This candidate is not kept any more."
BECAME = {
    "accepted": "It was accepted meanwhile, in another window: take that back to decide again.",
    "rejected": "It was rejected meanwhile, in another window: take that back to decide again.",
    "trained": "It is trained on already: nothing is left to decide.",
}


class Deciding:
    """Answers for the candidates, and takes decisions."""

    def __init__(self, settings: Settings, runs: Runs, views: Views) -> None:
        self._reviews = Reviews(settings.store)
        self._models = Models(History(settings.store))
        self._runs = runs
        self._views = views

    def routes(self) -> list[web.RouteDef]:
        """What is answered."""
        return [
            web.get(PATH, self._show),
            web.post("/decide", self._decide),
            web.post("/undo", self._undo),
        ]

    async def _show(self, request: web.Request) -> web.Response:
        models, model = await self._models.of(request)
        show: State = next((it for it in STATES if it == request.query.get("show")), "waiting")
        items = await self._reviews.queue(model)
        at, done = (request.query.get(name, "") for name in ("at", "done"))
        queue = Queue(items, show, at)
        # Who has just decided or moved on goes on from here.
        more = {"focus": bool(at or done), "done": queue.find(done)}
        return await self._answer(queue, models, model, more)

    async def _decide(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        queue, entry = await self._entry(form)
        if entry.state != "waiting":
            raise RefusedError(409, BECAME[entry.state])
        try:
            review = await self._review(form, entry)
        except AnswerError as error:
            more = {"problem": str(error), "draft": form.get("text")}
            return await self._answer(queue, [form["model"]], form["model"], more, 422)
        await self._reviews.decide(entry.item.name, review)
        following = queue.next_waiting()
        at = following.id if following else None
        return see_other(address(PATH, model=form["model"], at=at, done=entry.id))

    async def _undo(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        _, entry = await self._entry(form)
        if entry.state == "trained":
            raise RefusedError(409, BECAME["trained"])
        await self._reviews.undo(entry.item.name)
        return see_other(address(PATH, model=form["model"], at=entry.id))

    async def _entry(self, form: Mapping[str, str]) -> tuple[Queue, Entry]:
        """The candidate that a form is about, among those that wait."""
        queue = Queue(await self._reviews.queue(form["model"]), "waiting", form["id"])
        entry = queue.find(form["id"])
        if entry is None:
            raise RefusedError(404, GONE)
        return queue, entry

    async def _review(self, form: Mapping[str, str], entry: Entry) -> Review:
        choice, now = form.get("choice"), time.time()
        if choice == "rejected":
            return Review("rejected", "response", now)
        answer = next((it for it in get_args(Answer) if it == choice), None)
        if answer is None:
            raise RefusedError(400, "The form does not say what was decided.")
        if answer == "alternate" and (why := unusable_alternate(entry.item.candidate)):
            raise AnswerError(f"what the model would have said cannot be trained on: {why}")
        if answer != "edited":
            return Review("accepted", answer, now)
        # As browsers send what was typed.
        text = form.get("text", "").replace("\r\n", "\n")
        ids = await edited_ids(text, entry.item, await self._runs.scorer())
        return Review("accepted", "edited", now, text, ids)

    async def _answer(
        self,
        queue: Queue,
        models: Sequence[str],
        model: str,
        more: Mapping[str, object],
        status: int = 200,
    ) -> web.Response:
        values = {
            "queue": queue,
            "models": models,
            "model": model,
            "focus": False,
            "done": None,
            "problem": None,
            "draft": None,
            "states": STATES,
            "unusable_alternate": unusable_alternate,
        }
        return await self._views.show("candidates.html", PATH, {**values, **more}, status)
