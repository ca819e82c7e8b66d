"""The page of candidates: what is shown of each, and what is decided about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import get_args

from aiohttp import web

from mindhooks import MindhooksError
from mindscore.config import Settings
from mindscore.errors import reason
from mindscore.fingerprint import response_hash
from mindscore.review.answers import AnswerError, edited_ids, unusable_alternate
from mindscore.review.failures import RefusedError
from mindscore.review.forms import read_form
from mindscore.review.queue import STATES, Entry, Queue, State
from mindscore.review.reading import Models
from mindscore.review.runs import Runs
from mindscore.review.views import Views, address, see_other
from mindscore.store import ConflictError, History, Review, Reviewed, Reviews
from mindscore.store.reviews import Answer

PATH = "/candidates"
GONE = "This candidate is not kept any more."


class Deciding:
    """Answers for the candidates, and takes decisions."""

    def __init__(self, settings: Settings, runs: Runs, views: Views) -> None:
        self._reviews = Reviews(settings.store)
        self._models = Models(History(settings.store))
        self._runs = runs
        self._views = views
        self._under_way: set[asyncio.Task[web.Response]] = set()

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
        items = await self._reviews.listed(model)
        at, done = (request.query.get(name, "") for name in ("at", "done"))
        queue = Queue(items, show, at)
        # Who has just decided or moved on goes on from here.
        more = {"focus": bool(at or done), "done": queue.find(done)}
        return await self._answer(queue, models, model, more)

    async def _decide(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        return await self._to_its_end(self._decided(form))

    async def _undo(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        return await self._to_its_end(self._undone(form))

    async def _to_its_end(self, work: Coroutine[None, None, web.Response]) -> web.Response:
        """What ``work`` answers; it goes on where the browser that asked has gone on."""
        task = asyncio.create_task(work, name="review: a decision")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _decided(self, form: Mapping[str, str]) -> web.Response:
        try:
            queue, entry = await self._entry(form)
            review = await self._review(form, entry)
            await self._reviews.decide(entry.item.name, review)
        except MindhooksError as error:
            return await self._again(form, error)
        following = queue.next_waiting()
        at = following.id if following else None
        return see_other(address(PATH, model=form["model"], at=at, done=entry.id))

    async def _again(self, form: Mapping[str, str], error: MindhooksError) -> web.Response:
        """The candidate again, with the text that was typed, and why nothing was kept."""
        statuses = {AnswerError: 422, ConflictError: 409}
        status = statuses.get(type(error), 500)
        try:
            queue, entry = await self._entry(form)
            queue = queue if entry.state == "waiting" else queue.showing(entry.state)
            more = {"problem": reason(error), "draft": _typed(form)}
            return await self._answer(queue, [form["model"]], form["model"], more, status)
        except MindhooksError:
            raise RefusedError(status, reason(error), _lost(form)) from None

    async def _undone(self, form: Mapping[str, str]) -> web.Response:
        _, entry = await self._entry(form)
        try:
            await self._reviews.undo(entry.item.name, float(form.get("decided_at", "")))
        except ValueError:
            raise RefusedError(400, "The form does not say which decision.") from None
        except ConflictError as error:
            raise RefusedError(409, reason(error)) from None
        return see_other(address(PATH, model=form["model"], at=entry.id))

    async def _entry(self, form: Mapping[str, str]) -> tuple[Queue, Entry]:
        """The candidate that a form is about, among those that wait."""
        queue = Queue(await self._reviews.listed(form["model"]), "waiting", form["id"])
        entry = queue.find(form["id"])
        if entry is None:
            raise RefusedError(404, GONE, _lost(form))
        return queue, entry

    async def _review(self, form: Mapping[str, str], entry: Entry) -> Review:
        choice, now = form.get("choice"), time.time()
        if choice == "rejected":
            return Review("rejected", "response", now)
        answer = next((it for it in get_args(Answer) if it == choice), None)
        if answer is None:
            raise RefusedError(400, "The form does not say what was decided.")
        if answer == "response":
            return Review("accepted", answer, now)
        item = await self._reviews.one(entry.item.name)
        if item is None:
            raise RefusedError(404, GONE, _lost(form))
        if answer == "alternate":
            return Review("accepted", answer, now, ids=_seen_alternate(form, item))
        text = _typed(form) or ""
        ids = await edited_ids(text, item, await self._runs.scorer())
        return Review("accepted", "edited", now, text, ids)

    async def _answer(
        self,
        queue: Queue,
        models: Sequence[str],
        model: str,
        more: Mapping[str, object],
        status: int = 200,
    ) -> web.Response:
        entry = queue.current
        shown = entry and await self._reviews.one(entry.item.name)
        if entry and shown is None:
            raise RefusedError(404, GONE)
        values = {
            "queue": queue,
            "models": models,
            "model": model,
            "shown": shown,
            "focus": False,
            "done": None,
            "problem": None,
            "draft": None,
            "states": STATES,
            "unusable_alternate": unusable_alternate,
            "response_hash": response_hash,
        }
        return await self._views.show("candidates.html", PATH, {**values, **more}, status)


def _typed(form: Mapping[str, str]) -> str | None:
    """The text that was sent, with the ends of lines as they were typed."""
    text = form.get("text")
    return None if text is None else text.replace("\r\n", "\n")


def _lost(form: Mapping[str, str]) -> str | None:
    """The text that somebody wanted to be kept."""
    return _typed(form) if form.get("choice") == "edited" else None


def _seen_alternate(form: Mapping[str, str], item: Reviewed) -> tuple[int, ...] | None:
    """The ids of the alternate, if it is the one that was shown."""
    if why := unusable_alternate(item.candidate):
        raise AnswerError(f"what the model would have said cannot be trained on: {why}")
    ids = item.candidate.alternate_ids
    if ids is not None and form.get("alternate") != response_hash(ids):
        raise ConflictError("this candidate was found again with another answer: look again")
    return ids
