"""Decide on candidates."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from aiohttp import web

from mindhooks import FinetuneCandidate, MindhooksError, Scorer
from mindscore._util.errors import format_error
from mindscore.config.settings import ServerSettings, Settings
from mindscore.measure.prompts import response_hash
from mindscore.measure.retry import Retry
from mindscore.review.reading import Models
from mindscore.review.runs import Runs
from mindscore.review.web import PageRefusedError, Views, address, read_form, see_other
from mindscore.store import CandidateName, ConflictError, History, Listed, Review, Reviewed, Reviews
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


State = Literal["waiting", "accepted", "rejected", "trained"]
STATES: tuple[State, ...] = get_args(State)
NEIGHBOURS = 25
"""Candidates listed on either side of the shown one."""


def state_of(item: Listed) -> State:
    """Return the state of a candidate."""
    if item.sinks:
        return "trained"
    return "waiting" if item.review is None else item.review.decision


def id_of(name: CandidateName) -> str:
    """Return the id of a candidate in addresses, unique within a model."""
    return f"{name.timestamp_ns}-{name.continuation_hash}"


def distinct(items: Sequence[Listed]) -> list[Listed]:
    """Return candidates without those that are the same response, found again.

    A host that does not say when a response was given may make it new each time. Of those the one
    that was trained on is returned, else the one that was decided on, else the first.
    """
    kept: dict[tuple[str, str, str], Listed] = {}

    def said(item: Listed) -> tuple[str, str, str]:
        return item.name.continuation_hash, item.response_text, item.prior_context

    def settled(item: Listed) -> int:
        return 2 if item.sinks else item.review is not None

    for item in items:
        other = kept.setdefault(said(item), item)
        if settled(item) > settled(other):
            kept[said(item)] = item
    return [item for item in items if kept[said(item)] is item]


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """A candidate with its id in addresses and its state."""

    id: str
    state: State
    item: Listed


def _entry(item: Listed) -> QueueEntry:
    return QueueEntry(id_of(item.name), state_of(item), item)


class CandidateQueue:
    """The candidates of one model, each once, the largest divergence first.

    A page shows those of one state.

    ``at`` is the id of the requested candidate; the page shows the first one if it is not listed.
    """

    def __init__(self, items: Sequence[Listed], show: State, at: str) -> None:
        self._items = items
        self.entries = [_entry(item) for item in distinct(items)]
        self.counts = Counter(entry.state for entry in self.entries)
        self.show = show
        self.shown = [entry for entry in self.entries if entry.state == show]
        self._at = at
        ids = [entry.id for entry in self.shown]
        self.position = ids.index(at) if at in ids else 0

    def showing(self, show: State) -> CandidateQueue:
        """Return the same candidates, with those of another state shown."""
        return CandidateQueue(self._items, show, self._at)

    @property
    def current(self) -> QueueEntry | None:
        """The candidate that is shown, or ``None``."""
        return self.neighbour(0)

    def neighbour(self, step: int) -> QueueEntry | None:
        """Return the candidate ``step`` places after the current one, or ``None``."""
        at = self.position + step
        return self.shown[at] if 0 <= at < len(self.shown) else None

    def find(self, id_: str) -> QueueEntry | None:
        """Return a candidate in any state, or ``None`` if it is not stored any more."""
        return next((_entry(item) for item in self._items if id_of(item.name) == id_), None)

    def next_waiting(self) -> QueueEntry | None:
        """Return the next candidate to decide on; after the last, the first."""
        ids = [entry.id for entry in self.entries]
        start = ids.index(self._at) + 1 if self._at in ids else 0
        later = [*self.entries[start:], *self.entries[:start]]
        waiting = (it for it in later if it.state == "waiting" and it.id != self._at)
        return next(waiting, None)

    @property
    def listed(self) -> range:
        """The positions, among the shown candidates, of those in the list."""
        first = max(0, self.position - NEIGHBOURS)
        return range(first, min(len(self.shown), first + 2 * NEIGHBOURS + 1))


PATH = "/candidates"
GONE = "This candidate is not kept any more."


class Deciding:
    """The page of candidates, and the requests that decide on them."""

    def __init__(self, settings: Settings, runs: Runs, views: Views) -> None:
        self._reviews = Reviews(settings.store)
        self._models = Models(History(settings.store))
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
        queue = CandidateQueue(items, show, at)
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
        return see_other(address(PATH, model=form["model"], at=at, done=entry.id))

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
        return see_other(address(PATH, model=form["model"], at=entry.id))

    async def _entry(self, form: Mapping[str, str]) -> tuple[CandidateQueue, QueueEntry]:
        """Return the candidate of a form, and the queue of those that wait."""
        queue = CandidateQueue(await self._reviews.listed(form["model"]), "waiting", form["id"])
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
