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
from mindscore.config.settings import Settings
from mindscore.measure.fingerprint import response_hash
from mindscore.review.reading import Models
from mindscore.review.runs import Runs
from mindscore.review.web import RefusedError, Views, address, read_form, see_other
from mindscore.store import CandidateName, ConflictError, History, Listed, Review, Reviewed, Reviews
from mindscore.store.reviews import Answer

LONGEST_ENDING = 4
"""Tokens: what is longer than that says more than that the turn ends."""

INSTEAD = "choose another answer, or reject it"


class AnswerError(MindhooksError):
    """An answer cannot be trained on; the text says why, and what can be done."""


def unusable_alternate(candidate: FinetuneCandidate) -> str | None:
    """Why what the model says without memories is no answer to train on; ``None`` where it is."""
    if candidate.alternate_text is None:
        return "what the model would have said was not asked for (finetune.generate_alternates)"
    if candidate.alternate_ids is None:
        return "the model server gave its text, and not its tokens"
    if candidate.alternate_ids[-1:] != candidate.continuation_ids[-1:]:
        return (
            "it does not end as the response does: it was cut off at "
            "finetune.max_alternate_tokens, or ended otherwise"
        )
    if len(candidate.alternate_ids) == 1:
        return "it is empty"
    return None


async def edited_ids(text: str, item: Reviewed, scorer: Scorer) -> tuple[int, ...]:
    """The ids of ``text`` as the answer to a candidate: its own, then the response's end of turn.

    Raises:
        AnswerError: it cannot be tokenised as the response was, or says nothing, or more than one
            turn.
    """
    if not text.strip():
        raise AnswerError("an edited answer cannot be empty")
    if scorer.model != item.model:
        raise AnswerError(
            f"it cannot be edited: it was found with the model {item.model!r}, and server.model is "
            f"now {scorer.model!r}, which may have other tokens; {INSTEAD}"
        )
    try:
        said = await scorer.tokenize(item.candidate.response_text)
        ids = await scorer.tokenize(text)
    except MindhooksError as error:
        raise AnswerError(f"it cannot be tokenised: {format_error(error)}; {INSTEAD}") from error
    ending = _ending(item.candidate.continuation_ids, said)
    if set(ending) & set(ids):
        raise AnswerError("the text itself holds the end of a turn: take that out")
    return (*ids, *ending)


def _ending(continuation_ids: Sequence[int], said: Sequence[int]) -> tuple[int, ...]:
    """What follows in a response after the ids of its text."""
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
"""Candidates that are listed on either side of the one that is shown."""


def state_of(item: Listed) -> State:
    """What has become of a candidate."""
    if item.sinks:
        return "trained"
    return "waiting" if item.review is None else item.review.decision


def id_of(name: CandidateName) -> str:
    """A candidate of one model, in an address."""
    return f"{name.timestamp_ns}-{name.continuation_hash}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate, its id in addresses, and what has become of it."""

    id: str
    state: State
    item: Listed


class Queue:
    """One model's candidates, the largest divergence first, as a page shows those of one state.

    ``at`` is the id of the one that is asked for; of what is shown, it is the first where that one
    is not among them.
    """

    def __init__(self, items: Sequence[Listed], show: State, at: str) -> None:
        self.entries = [Entry(id_of(item.name), state_of(item), item) for item in items]
        self.counts = Counter(entry.state for entry in self.entries)
        self.show = show
        self.shown = [entry for entry in self.entries if entry.state == show]
        self._at = at
        ids = [entry.id for entry in self.shown]
        self.position = ids.index(at) if at in ids else 0

    def showing(self, show: State) -> Queue:
        """The same candidates, of which those of another state are shown."""
        return Queue([entry.item for entry in self.entries], show, self._at)

    @property
    def current(self) -> Entry | None:
        """The candidate that is shown, if there is any."""
        return self.neighbour(0)

    def neighbour(self, step: int) -> Entry | None:
        """The one so many steps on from the current, if there is one."""
        at = self.position + step
        return self.shown[at] if 0 <= at < len(self.shown) else None

    def find(self, id_: str) -> Entry | None:
        """A candidate in whatever state; ``None`` where it is not kept any more."""
        return next((entry for entry in self.entries if entry.id == id_), None)

    def next_waiting(self) -> Entry | None:
        """The candidate to decide on after the one asked for; after the last, the first."""
        ids = [entry.id for entry in self.entries]
        start = ids.index(self._at) + 1 if self._at in ids else 0
        later = [*self.entries[start:], *self.entries[:start]]
        waiting = (it for it in later if it.state == "waiting" and it.id != self._at)
        return next(waiting, None)

    @property
    def listed(self) -> range:
        """Where those stand, among those shown, that are named in the list."""
        first = max(0, self.position - NEIGHBOURS)
        return range(first, min(len(self.shown), first + 2 * NEIGHBOURS + 1))


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
            more = {"problem": format_error(error), "draft": _typed(form)}
            return await self._answer(queue, [form["model"]], form["model"], more, status)
        except MindhooksError:
            raise RefusedError(status, format_error(error), _lost(form)) from None

    async def _undone(self, form: Mapping[str, str]) -> web.Response:
        _, entry = await self._entry(form)
        try:
            await self._reviews.undo(entry.item.name, float(form.get("decided_at", "")))
        except ValueError:
            raise RefusedError(400, "The form does not say which decision.") from None
        except ConflictError as error:
            raise RefusedError(409, format_error(error)) from None
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
