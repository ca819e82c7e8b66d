"""The read-only pages: runs, memories, the matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from mindhooks import in_thread
from mindscore._util.text import shortened
from mindscore.config.settings import Settings
from mindscore.conversation.conversation import BEGINS, Transcript
from mindscore.measure.divergence import column_spread
from mindscore.review.runs import COMMANDS, Runs
from mindscore.review.web import RefusedError, Views, moment_text
from mindscore.store import Cell, Effects, History, Point, Store, StoredMemory
from mindscore.store.history import UNMEASURED_NOISE

NOT_KEPT = "Its text is not kept: mindscore review TRANSCRIPT shows it."
NOT_HERE = "It stands nowhere in this conversation."


MOST_CELLS = 50_000
"""Cells, the newest, that a page looks at."""

MOST_MEMORIES = 100
"""Memories on one page."""

MOST_OF_ID = 40
"""Characters shown of a conversation's id."""

MOST_RESPONSES = 500
"""Responses shown where no conversation is named: those scored last."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The data of the heat map.

    ``elsewhere``: number of cells of other conversations; ``older``: number of responses beyond
    ``MOST_RESPONSES``.
    """

    data: dict[str, Any]
    elsewhere: int
    older: int

    @property
    def size(self) -> tuple[int, int]:
        """Numbers of memories and responses."""
        return len(self.data["memories"]), len(self.data["responses"])


@dataclass(frozen=True, slots=True)
class Talk:
    """The cells of one conversation; ``name`` is for people, ``id`` for addresses."""

    id: str
    name: str
    cells: Sequence[Cell]


def conversations(cells: Sequence[Cell]) -> list[Talk]:
    """Return cells by conversation, that measured last first.

    Where it is not known, as of cells that an older version measured, those of one row are of one:
    they were stored together.
    """
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    unknown = [cell for cell in cells if not cell.conversation]
    first: dict[tuple[str, float], str] = {}
    for cell in unknown:
        together = first.setdefault((cell.key, cell.scored_at), cell.node_id)
        parent[root(cell.node_id)] = root(together)
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        name = (cell.conversation, "" if cell.conversation else root(cell.node_id))
        found.setdefault(name, []).append(cell)
    talks = sorted(found.values(), key=lambda its: -max(it.scored_at for it in its))
    return [_talk(its) for its in talks]


def _talk(cells: Sequence[Cell]) -> Talk:
    nodes = {cell.node_id for cell in cells}
    when = moment_text(max(cell.scored_at for cell in cells))
    words = "1 response" if len(nodes) == 1 else f"{len(nodes)} responses"
    first = min(cells, key=lambda it: (it.entry_idx, it.node_id))
    id_ = first.conversation
    name = f"{shortened(id_, MOST_OF_ID)}: " if id_ and not id_.startswith(BEGINS) else ""
    return Talk(id_ or first.node_id, f"{name}{words}, measured {when}", cells)


def matrix(cells: Sequence[Cell], transcript: Transcript | None) -> Matrix:
    """Arrange cells by memory, largest effect first, and response, in order.

    With a ``transcript``, the cells of its responses; else those of the ``MOST_RESPONSES`` scored
    last.
    """
    texts = response_texts(transcript)
    own = None if transcript is None else ("", transcript.id)
    mine = [it for it in cells if own is None or (it.node_id in texts and it.conversation in own)]
    # A response may have moved since some cells were measured: the newest has its index.
    newest: dict[str, Cell] = {}
    for cell in mine:
        if cell.node_id not in newest or cell.scored_at > newest[cell.node_id].scored_at:
            newest[cell.node_id] = cell
    if transcript is None:
        latest = sorted(newest.values(), key=lambda it: -it.scored_at)[:MOST_RESPONSES]
        places = {cell.node_id: cell.entry_idx for cell in latest}
    else:
        places = {id_: index for index, id_ in transcript.responses() if id_ in newest}
    nodes = sorted(places, key=lambda id_: (places[id_], id_))
    here = [cell for cell in mine if cell.node_id in places]
    largest: dict[str, float] = {}
    for cell in here:
        largest[cell.key] = max(largest.get(cell.key, 0.0), abs(cell.signed))
    keys = sorted(largest, key=lambda key: (-largest[key], key))
    here.sort(key=lambda it: it.scored_at)
    found = {(cell.key, cell.node_id): cell for cell in here}
    rows = [[found.get((key, id_)) for id_ in nodes] for key in keys]
    noise = [[cell.noise if cell else None for cell in row] for row in rows]
    memories = memory_texts(transcript)
    unknown = NOT_KEPT if transcript is None else NOT_HERE
    data = {
        "memories": [{"key": key, "text": memories.get(key, unknown)} for key in keys],
        "responses": [
            {"entry_idx": places[id_], "node_id": id_, "text": texts.get(id_, unknown)}
            for id_ in nodes
        ],
        "signed": [[cell.signed if cell else None for cell in row] for row in rows],
        "noise": noise if any(cell.noise is not None for cell in here) else None,
        "spread": [
            round(column_spread(cell.signed for cell in column if cell), 4)
            for column in zip(*rows, strict=True)
        ],
    }
    return Matrix(data, len(cells) - len(mine), len(newest) - len(nodes))


def response_texts(transcript: Transcript | None) -> dict[str, str]:
    """Return the text of each response of a transcript, by node id."""
    if transcript is None:
        return {}
    return {id_: transcript.conversation[index].text for index, id_ in transcript.responses()}


def memory_texts(transcript: Transcript | None) -> Mapping[str, str]:
    """Return the text of each memory of a transcript, by key, at its first position."""
    texts: dict[str, str] = {}
    if transcript is None:
        return texts
    for message in (*transcript.system, *transcript.identity, *transcript.conversation):
        if message.memory_key is not None:
            texts.setdefault(message.memory_key, message.text)
        for part in message.parts:
            if part.memory_key is not None:
                texts.setdefault(part.memory_key, part.text)
    return texts


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
