"""The pages that only show: runs, memories, the matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from mindhooks import in_thread
from mindscore.config import Settings
from mindscore.review.matrix import matrix, memory_texts
from mindscore.review.runs import COMMANDS, Runs
from mindscore.review.sparkline import HEIGHT, WIDTH, Sparkline, sparkline
from mindscore.review.views import Views
from mindscore.store import History, Store, StoredMemory


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """A memory as the page shows it; its text where a transcript has it."""

    memory: StoredMemory
    text: str | None
    line: Sparkline | None


Order = tuple[str, Callable[[MemoryRow], Any], bool]
ORDERS: dict[str, Order] = {
    "weight": ("Weight", lambda row: row.memory.weight, True),
    "score": ("Last score", lambda row: row.memory.score, True),
    "count": ("Times", lambda row: row.memory.count, True),
    "scored": ("Last scored", lambda row: row.memory.last_scored or 0.0, True),
    "key": ("Memory", lambda row: row.memory.key, False),
}
"""What memories are sorted by: its heading, its value, and whether the largest comes first."""


class Models:
    """The models that something is kept of, and the one that is looked at."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def of(self, request: web.Request) -> tuple[list[str], str]:
        """All of them, and the one asked for: else the last run's, else the first."""
        models = await self._history.models()
        asked = request.query.get("model")
        if asked in models:
            return models, asked
        for run in await self._history.runs(1):
            if run.model in models:
                return models, run.model
        return models, models[0] if models else ""


class Reading:
    """Answers for the pages that only show."""

    def __init__(self, settings: Settings, runs: Runs, views: Views) -> None:
        self._alternates = settings.finetune.generate_alternates
        self._history = History(settings.store)
        self._store = Store(settings.store)
        self._runs = runs
        self._views = views

    def routes(self) -> list[web.RouteDef]:
        """What is answered."""
        return [
            web.get("/", self._show_runs),
            web.get("/memories", self._show_memories),
            web.get("/matrix", self._show_matrix),
        ]

    async def _show_runs(self, _: web.Request) -> web.Response:
        values = {
            "runs": await self._history.runs(),
            "here": self._runs,
            "live": self._runs.live,
            "commands": COMMANDS,
            "alternates": self._alternates,
        }
        return await self._views.show("runs.html", "/", values)

    async def _show_memories(self, request: web.Request) -> web.Response:
        models, model = await Models(self._history).of(request)
        points = await self._history.weights()
        texts = memory_texts(self._runs.transcript)
        rows = [
            MemoryRow(it, texts.get(it.key), sparkline(points.get((it.key, it.model), [])))
            for it in await self._store.memories()
            if it.model == model
        ]
        sort = request.query.get("sort", "")
        sort = sort if sort in ORDERS else "weight"
        _, value, is_down = ORDERS[sort]
        values = {
            "rows": sorted(rows, key=value, reverse=is_down),
            "orders": ORDERS,
            "sort": sort,
            "models": models,
            "model": model,
            "has_texts": self._runs.transcript is not None,
            "width": WIDTH,
            "height": HEIGHT,
        }
        return await self._views.show("memories.html", "/memories", values)

    async def _show_matrix(self, request: web.Request) -> web.Response:
        models, model = await Models(self._history).of(request)
        cells = await self._history.cells(model)
        found = await in_thread(matrix, cells, self._runs.transcript)
        values = {"matrix": found, "models": models, "model": model}
        return await self._views.show("matrix.html", "/matrix", values)
