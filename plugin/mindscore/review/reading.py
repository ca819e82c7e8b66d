"""The read-only pages: runs, memories, the matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from mindhooks import in_thread
from mindscore.config.settings import Settings
from mindscore.conversation.conversation import Transcript
from mindscore.review.matrix import conversations, matrix, memory_texts, response_texts
from mindscore.review.runs import COMMANDS, Runs
from mindscore.review.web import RefusedError, Views
from mindscore.store import Effects, History, Point, Store, StoredMemory
from mindscore.store.history import UNMEASURED_NOISE

MOST_CELLS = 50_000
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
class MemoryRow:
    """A row of the page; ``text`` is ``None`` where no transcript has the memory.

    ``share`` is its weight as a share of the largest on the page.
    """

    memory: StoredMemory
    text: str | None
    line: Sparkline | None
    effects: Effects
    share: float

    @property
    def verdict(self) -> tuple[str, str]:
        """The CSS class and the words of what is known of the memory."""
        found = self.effects
        if found.helped and found.harmed:
            return "", f"helped {found.helped}, harmed {found.harmed}"
        if found.helped:
            return "more", f"helped {found.helped} of {found.measured}"
        if found.harmed:
            return "less", f"harmed {found.harmed} of {found.measured}"
        if found.measured or self.memory.count >= ENOUGH:
            return "", "nothing seen beyond noise"
        return "", "not enough evidence"


ENOUGH = 3
"""Scores of a memory that are evidence without a matrix."""

ORDERS = {
    "weight": ("Weight", "weight"),
    "score": ("Last score", "score"),
    "count": ("Times", "count"),
    "scored": ("Last scored", "last_scored"),
    "key": ("Memory", "key"),
}
"""Orders of memories: heading and column."""


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


class Reading:
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
        values = {"runs": await self._history.runs()}
        return await self._views.show("runs.html", "/runs", values)

    async def _show_memories(self, request: web.Request) -> web.Response:
        models, model = await Models(self._history).of(request)
        sort, wanted = request.query.get("sort", ""), request.query.get("find", "")
        sort = sort if sort in ORDERS else "weight"
        number = request.query.get("page", "")
        at = int(number) if number.isascii() and number.isdigit() and len(number) < 7 else 1
        offset = MOST_MEMORIES * (max(1, at) - 1)
        found = await self._store.memories(
            model, search=wanted, order=ORDERS[sort][1], limit=MOST_MEMORIES, offset=offset
        )
        total = await self._store.count_memories(model, search=wanted)
        values = {
            "rows": await self._rows(model, found),
            "total": total,
            "first": offset + 1,
            "page": max(1, at),
            "pages_": -(-total // MOST_MEMORIES),
            "find": wanted,
            "orders": ORDERS,
            "sort": sort,
            "models": models,
            "model": model,
            "has_texts": self._runs.transcript is not None,
            "width": WIDTH,
            "height": HEIGHT,
            "here": self._runs,
            "live": self._runs.live,
            "commands": COMMANDS,
            "alternates": self._alternates,
        }
        return await self._views.show("memories.html", "/", values)

    async def _rows(self, model: str, found: Sequence[StoredMemory]) -> list[MemoryRow]:
        keys = [it.key for it in found]
        points = await self._history.points(model, keys, MOST)
        effects = await self._history.effects(model, keys)
        texts = memory_texts(self._runs.transcript)
        most = max((it.weight for it in found), default=0.0) or 1.0
        return [
            MemoryRow(
                it,
                texts.get(it.key),
                sparkline(points[it.key]),
                effects.get(it.key, Effects()),
                max(0.0, it.weight / most),
            )
            for it in found
        ]

    async def _show_memory(self, request: web.Request) -> web.Response:
        models, model = await Models(self._history).of(request)
        key = request.query.get("key", "")
        cells = await self._history.cells(model, MOST_CELLS, key)
        if not cells and key not in memory_texts(self._runs.transcript):
            points = await self._history.points(model, [key], 1)
            if not points[key]:
                raise RefusedError(404, "Nothing is kept of this memory.")
        cells = sorted(cells, key=lambda it: -abs(it.signed))[:MOST_MEMORIES]
        values = {
            "key": key,
            "text": memory_texts(self._runs.transcript).get(key),
            "cells": cells,
            "texts": response_texts(self._runs.transcript),
            "most": max((abs(it.signed) for it in cells), default=0.0) or 1.0,
            "unmeasured": UNMEASURED_NOISE,
            "models": models,
            "model": model,
        }
        return await self._views.show("memory.html", "/memory", values)

    async def _show_matrix(self, request: web.Request) -> web.Response:
        models, model = await Models(self._history).of(request)
        cells = await self._history.cells(model, MOST_CELLS)
        transcript, asked = self._runs.transcript, request.query.get("conversation", "")
        talks = [] if transcript else await in_thread(conversations, cells)
        talk = next((it for it in talks if it.id == asked), talks[0] if talks else None)
        found = await in_thread(matrix, talk.cells if talk else cells, transcript)
        values = {
            "matrix": found,
            "models": models,
            "model": model,
            "talks": talks[:MOST_MEMORIES],
            "talk": talk,
            "is_cut": len(cells) == MOST_CELLS,
            "turns": turns(transcript, found.data) if transcript else [],
            "most_cells": MOST_CELLS,
        }
        return await self._views.show("matrix.html", "/matrix", values)


def turns(transcript: Transcript, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a conversation, each response with the memories that changed it."""
    columns = {it["node_id"]: at for at, it in enumerate(data["responses"])}
    found = []
    for index, message in enumerate(transcript.conversation):
        column = columns.get(message.id)
        effects: list[tuple[float, str]] = []
        for row, memory in enumerate(data["memories"]):
            value = None if column is None else data["signed"][row][column]
            if column is None or value is None:
                continue
            noise = data["noise"][row][column] if data["noise"] else None
            if abs(value) > max(noise or 0.0, data["spread"][column], 0.01):
                effects.append((value, memory["key"]))
        effects.sort(key=lambda it: -abs(it[0]))
        turn = {"index": index, "role": message.role, "text": message.text}
        found.append({**turn, "effects": effects[:5], "more": max(0, len(effects) - 5)})
    return found
