"""The read-only pages: runs, memories, the matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from mindhooks import MindCommand, in_thread
from mindscore._util.text import count_of
from mindscore.config.settings import Settings
from mindscore.measure.divergence import UNMEASURED_NOISE
from mindscore.measure.memories import memory_texts
from mindscore.pages.environment import turns
from mindscore.review.cells import (
    KeptEffect,
    conversations,
    effects,
    matrix,
    response_texts,
    up_to_date,
)
from mindscore.review.runs import COMMANDS, Runs
from mindscore.review.web import PageRefusedError, Views, address, page_number
from mindscore.store import NO_NOTES, Cell, History, Point, Store, StoredMemory

MOST_CELLS = 8_000
"""Cells, the newest, that a page looks at."""

MOST_MEMORIES = 100
"""Memories on one page."""

WIDTH, HEIGHT, MARGIN = 120.0, 28.0, 3.0
MOST = 60
"""Latest points that are drawn, two pixels each."""


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line of weights, as SVG points, and a point for each score.

    They are evenly spaced, from 0 nats at the bottom to ``most``; ``last`` is the line's end.
    """

    weights: str
    scores: Sequence[tuple[float, float]]
    last: tuple[float, float]
    words: str
    most: float


def sparkline(points: Sequence[Point]) -> Sparkline | None:
    """Return the sparkline of points, oldest first, or ``None`` if there are not two."""
    if len(points) < 2:
        return None
    drawn = points[-MOST:]
    most = max(max(it.score, it.weight) for it in drawn) or 1.0
    weights = _places([it.weight for it in drawn], most)
    scores = _places([it.score for it in drawn], most)
    line = " ".join(f"{x:g},{y:g}" for x, y in weights)
    return Sparkline(line, scores, weights[-1], _words(points), most)


def _places(values: Sequence[float], most: float) -> list[tuple[float, float]]:
    tall, step = HEIGHT - 2 * MARGIN, (WIDTH - 2 * MARGIN) / max(1, len(values) - 1)
    first = WIDTH - MARGIN - step * (len(values) - 1)
    return [
        (round(first + at * step, 1), round(HEIGHT - MARGIN - tall * max(0.0, value) / most, 1))
        for at, value in enumerate(values)
    ]


def _words(points: Sequence[Point]) -> str:
    first, last = points[0], points[-1]
    return (
        f"{len(points)} times scored: weight {first.weight:.2f} at first, {last.weight:.2f} now; "
        f"the last score {last.score:.2f} nats"
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Words about a memory; ``kind`` is a CSS class, ``note`` says what they rest on.

    ``command`` is the one that would tell more.
    """

    kind: str
    words: str
    note: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """A row of the page; ``text`` is ``None`` where no transcript has the memory.

    ``share`` is its weight as a share of the largest on the page.
    """

    memory: StoredMemory
    text: str | None
    line: Sparkline | None
    effects: Sequence[KeptEffect]
    share: float

    @property
    def verdict(self) -> Verdict:
        """The findings on the memory: by the matrix, else by its last score."""
        kinds = [effect.kind for effect in self.effects if not effect.is_estimate]
        helped, harmed = kinds.count("more"), kinds.count("less")
        responses = count_of(len(kinds), "response")
        of, on = f"of {responses}", f"on {responses}"
        if helped and harmed:
            return Verdict("", f"helped {helped}, harmed {harmed}", of)
        if helped or harmed:
            kind, what = ("more", "helped") if helped else ("less", "harmed")
            return Verdict(kind, f"{what} {helped or harmed}", of)
        if not self.memory.count:
            words = "nothing beyond noise" if kinds else "imported"
            return Verdict("", words, on if kinds else "never scored here")
        is_clear = self.memory.score > UNMEASURED_NOISE
        if kinds and not is_clear:
            return Verdict("", "nothing beyond noise", on)
        kind, words = "more" if is_clear else "", f"last score {self.memory.score:.2f}"
        if kinds:
            return Verdict(kind, words, f"nothing beyond noise {on} of the matrix")
        times = "once" if self.memory.count == 1 else f"{self.memory.count} times"
        note = f"{'' if is_clear else 'within noise; '}scored {times}; no matrix yet:"
        return Verdict(kind, words, note, "score --full")


ORDERS = {
    "weight": ("Weight", "weight"),
    "score": ("Last score", "score"),
    "count": ("Times", "count"),
    "scored": ("Last scored", "last_scored"),
    "key": ("Memory", "key"),
}
"""Orders of memories: heading and column."""


LEADS = {
    MindCommand.SCORE: "/",
    MindCommand.SCORE_FULL: "/matrix",
    MindCommand.SCORE_FINETUNE: "/candidates",
}
"""Pages that show what a command found."""


class Models:
    """The models with stored results, and the one that a page shows."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def of(self, request: web.Request) -> tuple[list[str], str]:
        """Return all models, and the one requested, else the last run's, else the first."""
        models = await self._history.models()
        asked = request.query.get("model")
        if asked in models:
            return models, asked
        for run in await self._history.runs(1):
            if run.model in models:
                return models, run.model
        return models, models[0] if models else ""


class ReadingPages:
    """The read-only pages."""

    def __init__(self, settings: Settings, runs: Runs, views: Views) -> None:
        self._alternates = settings.finetune.generate_alternates
        self._history = History(settings.store)
        self._store = Store(settings.store)
        self._runs = runs
        self._views = views

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the pages."""
        return [
            web.get("/", self._show_memories),
            web.get("/memories", self._show_memories),
            web.get("/memory", self._show_memory),
            web.get("/runs", self._show_runs),
            web.get("/matrix", self._show_matrix),
        ]

    async def _show_runs(self, _: web.Request) -> web.Response:
        values = {"runs": await self._history.runs(), "leads": LEADS}
        return await self._views.show("runs.html", "/runs", values)

    async def _show_memories(self, request: web.Request) -> web.Response:
        models, model = await Models(self._history).of(request)
        sort, wanted = request.query.get("sort", ""), request.query.get("find", "")
        sort = sort if sort in ORDERS else "weight"
        page = page_number(request)
        offset = MOST_MEMORIES * (page - 1)
        found = await self._store.memories(
            model, search=wanted, order=ORDERS[sort][1], limit=MOST_MEMORIES, offset=offset
        )
        total = await self._store.count_memories(model, search=wanted)
        keys = [it.key for it in found]
        latest, is_cut = await self._latest(model)
        of_keys = latest
        if is_cut and not {it.key for it in latest}.issubset(keys):
            of_keys, _ = await self._latest(model, keys)
        notes = await self._store.notes(model)
        rows = await self._rows(model, found, await in_thread(effects, of_keys, latest, notes))
        values = {
            "rows": rows,
            "in_matrix": bool(latest),
            "is_cut": is_cut,
            "most_cells": MOST_CELLS,
            "unmeasured": UNMEASURED_NOISE,
            "total": total,
            "first": offset + 1,
            "page": page,
            "pages_": -(-total // MOST_MEMORIES),
            "find": wanted,
            "orders": ORDERS,
            "sort": sort,
            "models": models,
            "model": model,
            "has_texts": self._runs.transcript is not None,
            "width": WIDTH,
            "height": HEIGHT,
            "margin": MARGIN,
            "here": self._runs,
            "live": self._runs.live,
            "commands": COMMANDS,
            "alternates": self._alternates,
        }
        return await self._views.show("memories.html", "/", values)

    async def _latest(
        self, model: str, keys: Sequence[str] | None = None
    ) -> tuple[list[Cell], bool]:
        """Return the ``MOST_CELLS`` cells measured last, and whether there are more."""
        found = await self._history.cells(model, MOST_CELLS + 1, keys)
        return found[:MOST_CELLS], len(found) > MOST_CELLS

    async def _rows(
        self, model: str, found: Sequence[StoredMemory], seen: Mapping[str, list[KeptEffect]]
    ) -> list[MemoryRow]:
        """Return a row for each memory; ``seen`` are the effects by key."""
        points = await self._history.points(model, [it.key for it in found], MOST)
        texts = self._texts()
        most = max((it.weight for it in found), default=0.0) or 1.0
        return [
            MemoryRow(
                it,
                texts.get(it.key),
                sparkline(points[it.key]),
                seen.get(it.key, []),
                max(0.0, it.weight / most),
            )
            for it in found
        ]

    def _texts(self) -> dict[str, str]:
        """Return the text of each memory of the page's conversation, if it has one."""
        transcript = self._runs.transcript
        return {} if transcript is None else memory_texts(transcript)

    async def _show_memory(self, request: web.Request) -> web.Response:
        models, model = await Models(self._history).of(request)
        key = request.query.get("key", "")
        cells, is_cut = await self._latest(model, [key])
        latest, _ = await self._latest(model)
        memory = await self._store.memory(model, key)
        text = self._texts().get(key)
        if not cells and memory is None and text is None:
            raise PageRefusedError(404, "Nothing is kept of this memory.")
        notes = await self._store.notes(model)
        by_key = await in_thread(effects, cells, latest, notes)
        seen = by_key.get(key, [])
        rows = await self._rows(model, [memory] if memory else [], by_key)
        values = {
            "key": key,
            "text": text,
            "row": rows[0] if rows else None,
            "clear": [it for it in seen if it.kind != "muted"][:MOST_MEMORIES],
            "noisy": [it for it in seen if it.kind == "muted"][:MOST_MEMORIES],
            "measured": len(seen),
            "texts": response_texts(self._runs.transcript),
            "most": max((abs(it.cell.signed) for it in seen), default=0.0) or 1.0,
            "is_cut": is_cut,
            "most_cells": MOST_CELLS,
            "unmeasured": UNMEASURED_NOISE,
            "width": WIDTH,
            "height": HEIGHT,
            "margin": MARGIN,
            "models": models,
            "model": model,
        }
        return await self._views.show("memory.html", "/memory", values)

    async def _show_matrix(self, request: web.Request) -> web.Response:
        models, model = await Models(self._history).of(request)
        cells, is_cut = await self._latest(model)
        transcript, asked = self._runs.transcript, request.query.get("conversation", "")
        talks = [] if transcript else await in_thread(conversations, cells)
        talk = next((it for it in talks if it.id == asked), talks[0] if talks else None)
        id_ = transcript.id if transcript else talk.id if talk else ""
        notes = (await self._store.notes(model, id_)).get(id_, NO_NOTES)
        if not is_cut:
            notes = up_to_date(notes, [it for it in cells if it.conversation == id_])
        found = await in_thread(matrix, talk.cells if talk else cells, transcript, notes)

        def response_page(column: int) -> str:
            node_id = found.data["responses"][column]["node_id"]
            talk_id = transcript.id if transcript else None
            return address("/response", model=model, node=node_id, conversation=talk_id)

        values = {
            "memory_page": lambda key: address("/memory", model=model, key=key),
            "response_page": response_page,
            "matrix": found,
            "models": models,
            "model": model,
            "talks": talks[:MOST_MEMORIES],
            "talk": talk,
            "is_cut": is_cut,
            "unmeasured": UNMEASURED_NOISE,
            "turns": turns(transcript, found.data) if transcript else [],
            "most_cells": MOST_CELLS,
        }
        return await self._views.show("matrix.html", "/matrix", values)
