"""The archive's page: which memories to keep, by all the evidence of the namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from mindhooks import in_thread
from mindscore.archive.advise import archive_advice
from mindscore.config.settings import Settings
from mindscore.measure.archive_advice import ArchiveAdvice
from mindscore.measure.verdicts import Advice
from mindscore.pages.archive import ORDERS, SIZES, ArchiveCards, Group, groups, ordered
from mindscore.review.web import Views, address, page_number
from mindscore.store import EvidenceState, Store

PATIENCE_S = 0.1
"""Seconds that a page waits for advice that it has begun; then it shows the last, or none."""

LOOK_AGAIN_S = 2
"""Seconds after which a browser looks again whether the advice is there."""

MOST_ROWS = 100
"""Memories on one page."""

LONGEST_TEXT = 20_000
"""Characters of one memory that the page shows."""


@dataclass(frozen=True, slots=True)
class KnownAdvice:
    """Advice, what it is shown with, and the state of the store that it was made in.

    ``models`` are all that have measured anything.
    """

    state: EvidenceState
    models: Sequence[str]
    archive: ArchiveAdvice
    cards: ArchiveCards
    groups: Sequence[Group]


class AdviceCache:
    """Advice by each model, made in a thread whenever the evidence has changed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = Store(settings.store)
        self._known: dict[str, KnownAdvice] = {}
        self._tasks: dict[str, asyncio.Task[KnownAdvice]] = {}
        self._models: Sequence[str] = ()

    async def of(self, asked: str) -> tuple[KnownAdvice | None, bool]:
        """Return the advice by a model, and whether it is of the store as it is now.

        It is ``None`` while it is made for the first time, and older while it is made anew. A model
        that has measured nothing gives way to the one that has measured the most.

        Raises:
            StoreError: the store cannot be read.
        """
        model = asked if asked in self._models else ""
        known, task = self._known.get(model), self._tasks.get(model)
        if task is None:
            state = await self._store.evidence_state()
            if known is not None and known.state == state:
                return known, True
            task = self._task(model, state)
            await asyncio.wait({task}, timeout=PATIENCE_S)
        if not task.done():
            return known, False
        # Where several have waited for it, the first takes it.
        if self._tasks.get(model) is task:
            del self._tasks[model]
        known = task.result()
        self._models = known.models
        self._known[model] = self._known[known.archive.model] = known
        state = await self._store.evidence_state()
        if known.state != state:
            self._task(model, state)
        return known, known.state == state

    def _task(self, model: str, state: EvidenceState) -> asyncio.Task[KnownAdvice]:
        """Return the task that makes the advice, which may have begun in an earlier state."""
        if model not in self._tasks:
            # In a loop of its own: its steps are long, and other pages are not to wait for them.
            work = in_thread(lambda: asyncio.run(self._make(model, state)))
            self._tasks[model] = asyncio.create_task(work)
        return self._tasks[model]

    async def _make(self, model: str, state: EvidenceState) -> KnownAdvice:
        archive, evidence = await archive_advice(self._settings, model or None)
        # What was read counts them already, unless there is nothing to read.
        kinds = evidence.kinds if evidence is not None else await self._store.evidence_kinds()
        models = sorted({it.model for it in kinds})
        return KnownAdvice(
            state, models, archive, ArchiveCards(archive, LONGEST_TEXT), groups(archive)
        )

    async def aclose(self) -> None:
        """Stop making advice."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class ArchivePages:
    """The page of the archive."""

    def __init__(self, settings: Settings, views: Views) -> None:
        self._views = views
        self._advice = AdviceCache(settings)

    def routes(self) -> list[web.RouteDef]:
        """Return the route of the page."""
        return [web.get("/archive", self._show)]

    async def aclose(self) -> None:
        """Stop what is under way."""
        await self._advice.aclose()

    async def _show(self, request: web.Request) -> web.Response:
        query = request.query
        known, is_current = await self._advice.of(query.get("model", ""))
        if known is None:
            answer = await self._views.show("advice_later.html", "/archive", {})
            # Without a script, too.
            answer.headers["Refresh"] = str(LOOK_AGAIN_S)
            return answer
        archive, cards = known.archive, known.cards
        sort, find, verdict = (query.get(name, "") for name in ("sort", "find", "verdict"))
        sort = sort if sort in ORDERS else "nats"
        found = await in_thread(_found, archive, sort, find, verdict)
        page = page_number(request)
        if at := query.get("at"):
            places = [number for number, it in enumerate(found) if it.key == at]
            page = places[0] // MOST_ROWS + 1 if places else page
        first = MOST_ROWS * (page - 1)
        link_to = partial(address, "/archive", model=archive.model)

        def link(key: str) -> str:
            return f"{link_to(at=key)}#m{cards.numbers[key]}" if key in cards.numbers else link_to()

        values = {
            "archive": archive,
            "cards": cards,
            "groups": known.groups,
            "models": known.models,
            "model": archive.model,
            "is_current": is_current,
            "rows": [cards.card(it) for it in found[first : first + MOST_ROWS]],
            "total": len(found),
            "first": first + 1,
            "page": page,
            "pages_": -(-len(found) // MOST_ROWS),
            "sort": sort,
            "find": find,
            "verdict": verdict,
            "orders": ORDERS,
            "sizes": SIZES,
            "link": link,
            "page_of": lambda key: address("/memory", model=archive.model, key=key),
        }
        return await self._views.show("advice.html", "/archive", values)


def _found(archive: ArchiveAdvice, sort: str, find: str, verdict: str) -> list[Advice]:
    """Return the advice to show, in order: names from A, numbers from the largest."""
    wanted = find.strip().casefold()

    def fits(it: Advice) -> bool:
        text = it.evidence.version.text or archive.texts.get(it.key, "")
        return wanted in f"{it.key}\n{text}\n{it.reason}".casefold()

    of_verdict = [it for it in archive.advice if not verdict or it.verdict == verdict]
    found = [it for it in of_verdict if fits(it)] if wanted else of_verdict
    return ordered(found, sort, descending=sort != "key")
