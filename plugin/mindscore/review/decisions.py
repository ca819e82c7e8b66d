"""Decide on candidates."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import get_args

from aiohttp import web

from mindhooks import FinetuneCandidate, MindCommand, MindhooksError, Scorer
from mindscore._util.errors import format_error
from mindscore.config.settings import ServerSettings, Settings
from mindscore.measure.memories import memory_texts
from mindscore.measure.prompts import response_hash
from mindscore.measure.retry import Retry
from mindscore.review.leaning import Leanings
from mindscore.review.queue import (
    STATES,
    CandidateQueue,
    QueueEntry,
    State,
    why_empty,
)
from mindscore.review.reading import Models
from mindscore.review.runs import Runs
from mindscore.review.web import PageRefusedError, Views, address, read_form, see_other
from mindscore.store import ConflictError, History, Review, Reviewed, Reviews
from mindscore.store.reviews import Answer

LONGEST_ENDING = 4
"""Tokens that an end of turn may have; a longer ending says more."""

INSTEAD = "choose another answer, or reject it"


class AnswerError(MindhooksError):
    """An answer cannot be trained on; the text says why and what to do."""


def unusable_alternate(candidate: FinetuneCandidate) -> str | None:
    """Return the reason why the alternate cannot be trained on, or ``None`` if it can."""
    if candidate.alternate_text is None:
        return "what the model would have said was not asked for (finetune.generate_alternates)"
    if candidate.alternate_ids is None:
        return "the model server gave its text, and not its tokens"
    if candidate.alternate_ids[-1:] != candidate.continuation_ids[-1:]:
        return (
            "it does not end as the response does: it was cut off at "
            "finetune.max_alternate_tokens or the model's context, or ended otherwise"
        )
    if len(candidate.alternate_ids) == 1:
        return "it is empty"
    return None


async def edited_ids(
    text: str, item: Reviewed, scorer: Scorer, server: ServerSettings | None = None
) -> tuple[int, ...]:
    """Return the ids of ``text`` as the answer to a candidate, with the response's end of turn.

    Raises:
        AnswerError: it cannot be tokenised as the response was, is empty, or is more than one turn.
    """
    if not text.strip():
        raise AnswerError("an edited answer cannot be empty")
    if scorer.model != item.model:
        raise AnswerError(
            f"it cannot be edited: it was found with the model {item.model!r}, and server.model is "
            f"now {scorer.model!r}, which may have other tokens; {INSTEAD}"
        )
    try:
        tokenize = Retry(server or ServerSettings()).wrap(scorer.tokenize)
        said = await tokenize(item.candidate.response_text)
        ids = await tokenize(text)
    except MindhooksError as error:
        raise AnswerError(f"it cannot be tokenised: {format_error(error)}; {INSTEAD}") from error
    ending = _ending(item.candidate.continuation_ids, said)
    if set(ending) & set(ids):
        raise AnswerError("the text itself holds the end of a turn: take that out")
    return (*ids, *ending)


def _ending(continuation_ids: Sequence[int], said: Sequence[int]) -> tuple[int, ...]:
    """Return the ids after those of a response's text."""
    ending = tuple(continuation_ids[len(said) :])
    if list(continuation_ids[: len(said)]) != list(said):
        raise AnswerError(
            "it cannot be edited: the response's own tokens are not those that the model's "
            f"tokenizer makes of its text; {INSTEAD}"
        )
    if not ending:
        raise AnswerError(f"it cannot be edited: the response has no end of turn; {INSTEAD}")
    if len(ending) > LONGEST_ENDING:
        raise AnswerError(
            "it cannot be edited: the response goes on after its text, as with a call of a tool; "
            f"{INSTEAD}"
        )
    return ending


PATH = "/candidates"
GONE = "This candidate is not kept any more."


class Deciding:
    """The page of candidates, and the requests that decide on them."""

    def __init__(self, settings: Settings, runs: Runs, views: Views) -> None:
        self._reviews = Reviews(settings.store)
        self._history = History(settings.store)
        self._models = Models(self._history)
        self._leanings = Leanings(settings.store, runs)
        self._runs = runs
        self._server = settings.server
        self._views = views
        self._under_way: set[asyncio.Task[web.Response]] = set()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the page and its forms."""
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
        queue = CandidateQueue(items, show, at, _threshold(request.query))
        # After a decision, the keyboard focus is on the next candidate.
        more = {"focus": bool(at or done), "done": queue.find(done)}
        return await self._answer(queue, models, model, more)

    async def _decide(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        return await self._finish(self._decided(form))

    async def _undo(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        return await self._finish(self._undone(form))

    async def _finish(self, work: Coroutine[None, None, web.Response]) -> web.Response:
        """Return the response of ``work``, which continues if the browser disconnects."""
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
        return see_other(_back(form, at=at, done=entry.id))

    async def _again(self, form: Mapping[str, str], error: MindhooksError) -> web.Response:
        """Show the candidate again, with the typed text and the error."""
        statuses = {AnswerError: 422, ConflictError: 409}
        status = statuses.get(type(error), 500)
        try:
            queue, entry = await self._entry(form)
            queue = queue if entry.state == "waiting" else queue.showing(entry.state)
            more = {"problem": format_error(error), "draft": _typed(form)}
            return await self._answer(queue, [form["model"]], form["model"], more, status)
        except MindhooksError:
            raise PageRefusedError(status, format_error(error), _lost(form)) from None

    async def _undone(self, form: Mapping[str, str]) -> web.Response:
        _, entry = await self._entry(form)
        try:
            await self._reviews.undo(entry.item.name, float(form.get("decided_at", "")))
        except ValueError:
            raise PageRefusedError(400, "The form does not say which decision.") from None
        except ConflictError as error:
            raise PageRefusedError(409, format_error(error)) from None
        return see_other(_back(form, at=entry.id))

    async def _entry(self, form: Mapping[str, str]) -> tuple[CandidateQueue, QueueEntry]:
        """Return the candidate of a form, and the queue of those that wait."""
        items = await self._reviews.listed(form["model"])
        queue = CandidateQueue(items, "waiting", form["id"], _threshold(form))
        entry = queue.find(form["id"])
        if entry is None:
            raise PageRefusedError(404, GONE, _lost(form))
        return queue, entry

    async def _review(self, form: Mapping[str, str], entry: QueueEntry) -> Review:
        choice, now = form.get("choice"), time.time()
        if choice == "rejected":
            return Review("rejected", "response", now)
        answer = next((it for it in get_args(Answer) if it == choice), None)
        if answer is None:
            raise PageRefusedError(400, "The form does not say what was decided.")
        if answer == "response":
            return Review("accepted", answer, now)
        item = await self._reviews.one(entry.item.name)
        if item is None:
            raise PageRefusedError(404, GONE, _lost(form))
        if answer == "alternate":
            return Review("accepted", answer, now, ids=_seen_alternate(form, item))
        text = _typed(form) or ""
        ids = await edited_ids(text, item, await self._runs.scorer(), self._server)
        return Review("accepted", "edited", now, text, ids)

    async def _answer(
        self,
        queue: CandidateQueue,
        models: Sequence[str],
        model: str,
        more: Mapping[str, object],
        status: int = 200,
    ) -> web.Response:
        entry = queue.current
        shown = entry and await self._reviews.one(entry.item.name)
        if entry and shown is None:
            raise PageRefusedError(404, GONE)
        leaned = shown and await self._leanings.of(
            model, shown.candidate.node_id, shown.conversation
        )
        talk = self._runs.transcript
        values = {
            "leaned": leaned,
            "memory_texts": {} if talk is None else memory_texts(talk),
            "why": [] if shown else await self._why(queue, model),
            "queue": queue,
            "models": models,
            "model": model,
            "shown": shown,
            "focus": False,
            "done": None,
            "problem": None,
            "draft": None,
            "here": {"model": model, "threshold": _in_address(queue.threshold)},
            "states": STATES,
            "unusable_alternate": unusable_alternate,
            "response_hash": response_hash,
        }
        return await self._views.show("candidates.html", PATH, {**values, **more}, status)

    async def _why(self, queue: CandidateQueue, model: str) -> list[str]:
        """Return the reasons why nothing is listed, in sentences."""
        search = await self._history.last_run(MindCommand.SCORE_FINETUNE, model)
        return why_empty(queue, search, len((await self._reviews.unlisted(model)).faded))


def _threshold(given: Mapping[str, str]) -> float:
    """Return the nats that are asked for; 0 for nonsense."""
    try:
        nats = float(given.get("threshold", ""))
    except ValueError:
        return 0.0
    return nats if math.isfinite(nats) and nats > 0 else 0.0


def _back(form: Mapping[str, str], **query: str | None) -> str:
    """Return the address of the page that a form is on, with its model and threshold."""
    return address(PATH, model=form["model"], threshold=_in_address(_threshold(form)), **query)


def _in_address(threshold: float) -> str | None:
    return str(threshold) if threshold else None


def _typed(form: Mapping[str, str]) -> str | None:
    """Return the text of a form, with the line ends as they were typed."""
    text = form.get("text")
    return None if text is None else text.replace("\r\n", "\n")


def _lost(form: Mapping[str, str]) -> str | None:
    """Return the text that would be lost with a refused form."""
    return _typed(form) if form.get("choice") == "edited" else None


def _seen_alternate(form: Mapping[str, str], item: Reviewed) -> tuple[int, ...] | None:
    """Return the ids of the alternate, if it is the one that was shown."""
    if why := unusable_alternate(item.candidate):
        raise AnswerError(f"what the model would have said cannot be trained on: {why}")
    ids = item.candidate.alternate_ids
    if ids is not None and form.get("alternate") != response_hash(ids):
        raise ConflictError("this candidate was found again with another answer: look again")
    return ids
