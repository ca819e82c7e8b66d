"""The pages that only show: runs, memories, the matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from mindhooks import in_thread
from mindscore.config.settings import Settings
from mindscore.conversation.conversation import Transcript
from mindscore.review.runs import COMMANDS, Runs
from mindscore.review.web import Views
from mindscore.store import Cell, History, Point, Store, StoredMemory

NOT_KEPT = "Its text is not kept: mindscore review TRANSCRIPT shows it."
NOT_HERE = "It stands nowhere in this conversation."


MOST_RESPONSES = 500
"""Of all conversations together: those that were scored last."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """What the heat map is given, and what it is not.

    ``elsewhere``: how many cells are of other conversations; ``older``: how many responses were
    scored too long ago.
    """

    data: dict[str, Any]
    elsewhere: int
    older: int

    @property
    def size(self) -> tuple[int, int]:
        """How many memories and responses."""
        return len(self.data["memories"]), len(self.data["responses"])


def matrix(cells: Sequence[Cell], transcript: Transcript | None) -> Matrix:
    """The cells by memory, the most telling first, and response, in order.

    Where there is a ``transcript``, those of its responses; the store may hold others'. Else those
    of the ``MOST_RESPONSES`` that were scored last.
    """
    texts = response_texts(transcript)
    mine = [cell for cell in cells if transcript is None or cell.node_id in texts]
    # A response may have moved since some of its cells were found: its newest cell says where to.
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
    }
    return Matrix(data, len(cells) - len(mine), len(newest) - len(nodes))


def response_texts(transcript: Transcript | None) -> dict[str, str]:
    """What each response of a transcript says, by node id."""
    if transcript is None:
        return {}
    return {id_: transcript.conversation[index].text for index, id_ in transcript.responses()}


def memory_texts(transcript: Transcript | None) -> Mapping[str, str]:
    """What each memory of a transcript says, by key; where it stands first."""
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
"""The latest points that are drawn: two pixels each."""


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line of weights, as SVG takes one, and a point for each score.

    They are evenly spaced, from 0 nats at the bottom; ``last`` is where the line ends.
    """

    weights: str
    scores: Sequence[tuple[float, float]]
    last: tuple[float, float]
    words: str


def sparkline(points: Sequence[Point]) -> Sparkline | None:
    """The picture of some points, the oldest first; ``None`` where there are none."""
    if not points:
        return None
    drawn = points[-MOST:]
    most = max(max(it.score, it.weight) for it in drawn) or 1.0
    weights = _places([it.weight for it in drawn], most)
    scores = _places([it.score for it in drawn], most)
    line = " ".join(f"{x:g},{y:g}" for x, y in weights)
    return Sparkline(line, scores, weights[-1], _words(points))


def _places(values: Sequence[float], most: float) -> list[tuple[float, float]]:
    # A single one stands at the right, where the latest always is.
    tall, step = HEIGHT - 2 * MARGIN, (WIDTH - 2 * MARGIN) / max(1, len(values) - 1)
    first = WIDTH - MARGIN - step * (len(values) - 1)
    return [
        (round(first + at * step, 1), round(HEIGHT - MARGIN - tall * max(0.0, value) / most, 1))
        for at, value in enumerate(values)
    ]


def _words(points: Sequence[Point]) -> str:
    first, last = points[0], points[-1]
    if len(points) == 1:
        return f"scored once: {last.score:.2f} nats"
    return (
        f"{len(points)} times scored: weight {first.weight:.2f} at first, {last.weight:.2f} now; "
        f"the last score {last.score:.2f} nats"
    )


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
