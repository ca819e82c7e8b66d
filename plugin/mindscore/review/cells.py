"""Stored conversations, arranged for the pages and for ``mindscore show``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mindhooks import MemoryScore, MindCommand, ResponseDivergence, Role
from mindscore._util.text import count_of, moment_text, shortened
from mindscore.config.settings import Settings
from mindscore.conversation.conversation import BEGINS, Transcript
from mindscore.conversation.message import Message
from mindscore.measure.divergence import (
    UNMEASURED_NOISE,
    column_spread,
    column_spreads,
    noise_limit,
)
from mindscore.measure.memories import text_hashes
from mindscore.measure.screening.receipt import Estimate
from mindscore.session.result import Result
from mindscore.store import Cell, History, Reviews, Store

NOT_KEPT = "Its text is not kept: mindscore review TRANSCRIPT shows it."
NOT_HERE = "It stands nowhere in this conversation."

MOST_RESPONSES = 500
"""Responses shown where no conversation is named: those scored last."""


@dataclass(frozen=True, slots=True)
class KeptEffect:
    """A cell, and the nats within which it cannot be told from chance."""

    cell: Cell
    limit: float

    @property
    def is_estimate(self) -> bool:
        """True if a screen has estimated it, and nothing measured it."""
        return self.cell.mode == "estimate"

    @property
    def kind(self) -> str:
        """``"more"``, ``"less"``, or ``"muted"`` within noise: a CSS class."""
        if abs(self.cell.signed) <= self.limit:
            return "muted"
        return "more" if self.cell.signed > 0 else "less"


def effects(cells: Iterable[Cell], latest: Iterable[Cell]) -> dict[str, list[KeptEffect]]:
    """Return the effects in ``cells`` by key, the largest first.

    ``latest`` are cells of all memories, which tell the spread of each response.
    """
    spreads = column_spreads([latest])
    found: dict[str, list[KeptEffect]] = defaultdict(list)
    for cell in sorted(cells, key=lambda it: -abs(it.signed)):
        limit = noise_limit(cell.noise, round(spreads.get(cell.node_id, 0.0), 4))
        found[cell.key].append(KeptEffect(cell, limit))
    return dict(found)


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


MOST_OF_ID = 40
"""Characters shown of a conversation's id."""


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
    words = count_of(len(nodes), "response")
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
    shown = [it for it in cells if own is None or (it.node_id in texts and it.conversation in own)]
    # A response may have moved since some cells were measured: the newest has its index.
    newest: dict[str, Cell] = {}
    for cell in shown:
        if cell.node_id not in newest or cell.scored_at > newest[cell.node_id].scored_at:
            newest[cell.node_id] = cell
    if transcript is None:
        latest = sorted(newest.values(), key=lambda it: -it.scored_at)[:MOST_RESPONSES]
        places = {cell.node_id: cell.entry_idx for cell in latest}
    else:
        places = {id_: index for index, id_ in transcript.responses() if id_ in newest}
    nodes = sorted(places, key=lambda id_: (places[id_], id_))
    here = [cell for cell in shown if cell.node_id in places]
    largest: dict[str, float] = {}
    for cell in here:
        largest[cell.key] = max(largest.get(cell.key, 0.0), abs(cell.signed))
    keys = sorted(largest, key=lambda key: (-largest[key], key))
    here.sort(key=lambda it: it.scored_at)
    found = {(cell.key, cell.node_id): cell for cell in here}
    rows = [[found.get((key, id_)) for id_ in nodes] for key in keys]
    # A row of estimates alone is never among those that were measured.
    guessed = {key for key, row in zip(keys, rows, strict=True) if all(map(_is_guess, row))}
    pairs = sorted(zip(keys, rows, strict=True), key=lambda it: it[0] in guessed)
    keys, rows = [key for key, _ in pairs], [row for _, row in pairs]
    noise = [[cell.noise if cell else None for cell in row] for row in rows]
    estimated = [[bool(cell and _is_guess(cell)) for cell in row] for row in rows]
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
        "estimated": estimated if any(map(any, estimated)) else None,
        "spread": [
            round(column_spread(cell.signed for cell in column if cell), 4)
            for column in zip(*rows, strict=True)
        ],
        "unmeasured": UNMEASURED_NOISE,
    }
    return Matrix(data, len(cells) - len(shown), len(newest) - len(nodes))


def _is_guess(cell: Cell | None) -> bool:
    """Return whether nothing was measured in a cell's place."""
    return cell is None or cell.mode == "estimate"


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
                texts.setdefault(part.memory_key, part.text.strip())
    return texts


TEXTS_NOT_KEPT = (
    "the texts of memories and responses are not kept: mindscore show TRANSCRIPT has them from the "
    "file"
)
MOST_INDEX = 100_000
"""Positions in a conversation that is known by its cells alone."""


async def stored_results(
    settings: Settings, model: str, conversation: str, transcript: Transcript | None
) -> list[Result]:
    """Return what the store has of a conversation by one model: a result for each command.

    The matrix comes first, then the incremental scores, then the candidates; what there is nothing
    of is left out. With a ``transcript``, only values of its responses and of its memories as they
    are written there; without, of each memory those of the text that was measured last. Where the
    ``conversation`` is not known (empty), there is a matrix for each.
    """
    store = settings.store
    texts = None if transcript is None else text_hashes(transcript)
    known = await Store(store).latest_scores(model, conversation, texts)
    cells = await History(store).cells(model, None, conversation=conversation, texts=texts)
    reviewed = await Reviews(store).queue(model, conversation)
    if transcript is not None:
        places = {id_: index for index, id_ in transcript.responses()}
        cells = [replace(it, entry_idx=places[it.node_id]) for it in cells if it.node_id in places]
        reviewed = [it for it in reviewed if it.candidate.node_id in places]
    matrices = [_rows(talk.cells) for talk in conversations(cells)]
    blank = transcript or _stand_in(conversation, [*known], [])
    remarks = blank.remarks if transcript else (TEXTS_NOT_KEPT,)

    def result(command: str, measured: Iterable[float], **found: Any) -> Result:
        times = list(measured)
        given: dict[str, Any] = {"transcript": blank, "scores": {}, "candidates": (), **found}
        return Result(
            command=command,
            model=model,
            stats=None,
            error=None,
            remarks=remarks,
            min_divergence=settings.memory.min_divergence,
            measured=(min(times), max(times)),
            **given,
        )

    results = []
    for rows in matrices:
        talk = transcript or _stand_in(conversation, [*rows], rows.values())
        keys = [key for key in talk.keys() if key in rows]  # noqa: SIM118 - no mapping
        measured = {key: [it for it in rows[key] if it.mode == "full"] for key in keys}
        guesses = [it for key in keys for it in rows[key] if it.mode == "estimate"]
        errors = [it.noise for it in guesses if it.noise is not None]
        found = {
            "transcript": talk,
            "scores": {key: _score(key, row) for key, row in measured.items() if row},
            "keys": tuple(keys),
            "estimates": tuple(
                Estimate(it.key, it.node_id, it.entry_idx, it.signed) for it in guesses
            ),
            "estimates_error": max(errors, default=None),
        }
        times = (it.scored_at for row in rows.values() for it in row)
        results.append(result(MindCommand.SCORE_FULL, times, **found))
    if known:
        times = (it.scored_at for it in known.values())
        results.append(result(MindCommand.SCORE, times, known=known, keys=tuple(sorted(known))))
    if reviewed:
        candidates = tuple(it.candidate for it in reviewed)
        times = (it.found_at for it in reviewed)
        found = {"candidates": candidates, "reviewed": tuple(reviewed), "keys": ()}
        results.append(result(MindCommand.SCORE_FINETUNE, times, **found))
    return results


def _rows(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Return cells by key: of the text that was measured last, and one for each place.

    A response that another one stands in the place of, since the conversation was changed, has
    none.
    """
    newest = sorted(cells, key=lambda it: -it.scored_at)
    places: dict[int, str] = {}
    texts: dict[str, str] = {}
    rows: dict[str, list[Cell]] = {}
    for it in newest:
        if not 0 <= it.entry_idx < MOST_INDEX:
            continue
        node_id = places.setdefault(it.entry_idx, it.node_id)
        text_hash = texts.setdefault(it.key, it.text_hash)
        if (it.node_id, it.text_hash) == (node_id, text_hash):
            rows.setdefault(it.key, []).append(it)
    return {key: sorted(row, key=lambda it: it.entry_idx) for key, row in sorted(rows.items())}


def _score(key: str, row: Sequence[Cell]) -> MemoryScore:
    effects = tuple(
        ResponseDivergence(it.entry_idx, it.node_id, it.divergence, it.signed, it.noise)
        for it in row
    )
    return MemoryScore(key, max(it.divergence for it in row), "full", effects)


def _stand_in(id_: str, keys: Iterable[str], rows: Iterable[Iterable[Cell]]) -> Transcript:
    """Return a transcript of what the store knows of one: keys and places, without texts."""
    places = {it.entry_idx: it.node_id for row in rows for it in row}
    spoken = [Message(Role.USER, "")] * (max(places, default=-1) + 1)
    for index, node_id in places.items():
        spoken[index] = Message(Role.ASSISTANT, "", id=node_id)
    memories = tuple(Message(Role.MEMORY, "", memory_key=key) for key in sorted(keys))
    return Transcript(Path(shortened(id_, MOST_OF_ID)), (), memories, tuple(spoken), id=id_)


def one_page(results: Sequence[Result]) -> Result:
    """Return the results of one model as one, for a report; the first one's command is its own."""
    times = [moment for it in results for moment in it.measured or ()]
    return replace(
        results[0],
        keys=tuple(dict.fromkeys(key for it in results for key in it.keys)),
        known={key: it for result in results for key, it in result.known.items()},
        candidates=tuple(it for result in results for it in result.candidates),
        reviewed=tuple(it for result in results for it in result.reviewed),
        measured=(min(times), max(times)),
    )
