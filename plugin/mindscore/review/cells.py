"""Stored conversations, arranged for the pages and for ``mindscore show``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from mindhooks import MemoryScore, MindCommand, ResponseDivergence, Role
from mindscore._util.text import count_of, moment_text, shortened
from mindscore.config.settings import Settings
from mindscore.conversation.conversation import BEGINS, Transcript
from mindscore.conversation.message import Message
from mindscore.measure.divergence import (
    UNMEASURED_NOISE,
    column_spreads,
    noise_limit,
)
from mindscore.measure.interactions import FoundInteractions, ToldInteraction, told_once
from mindscore.measure.memories import memory_texts, text_hashes
from mindscore.measure.screening.plain import in_words
from mindscore.measure.screening.receipt import Estimate
from mindscore.session.result import Result
from mindscore.store import NO_NOTES, Cell, History, Notes, Reviews, Store

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


def effects(
    cells: Iterable[Cell], latest: Iterable[Cell], notes: Mapping[str, Notes]
) -> dict[str, list[KeptEffect]]:
    """Return the effects in ``cells`` by key, the largest first.

    ``latest`` are cells of all memories, which tell the spread of each response; ``notes`` are
    those on matrices, by conversation.
    """
    spreads = column_spreads([[it for it in latest if it.mode == "full"]])
    found: dict[str, list[KeptEffect]] = defaultdict(list)
    for cell in sorted(cells, key=lambda it: -abs(it.signed)):
        place = _place(notes.get(cell.conversation), cell.node_id)
        spread = round(max(spreads.get(cell.node_id, 0.0), place), 4)
        found[cell.key].append(KeptEffect(cell, noise_limit(cell.noise, spread)))
    return dict(found)


def _place(notes: Notes | None, node_id: str) -> float:
    """Return the nats that an unrelated text does to a response; 0.0: it is not known."""
    placebo = None if notes is None else notes.placebo
    return 0.0 if placebo is None else placebo.spread.get(node_id, 0.0)


@dataclass(frozen=True, slots=True)
class Matrix:
    """The data of the heat map.

    ``elsewhere``: number of cells of other conversations, or of this one as it was before;
    ``older``: number of responses beyond ``MOST_RESPONSES``; ``notes`` are those on it.
    """

    data: dict[str, Any]
    elsewhere: int
    older: int
    notes: Notes = NO_NOTES

    @property
    def screened(self) -> list[str]:
        """Lines on what of it is exact, and what a screen has estimated, if any is."""
        return in_words(self.notes.screen) if self.notes.screen is not None else []

    @property
    def pairs(self) -> list[ToldInteraction]:
        """The memories that hide or need each other, and the responses for which they do."""
        numbers = {it["node_id"]: it["entry_idx"] for it in self.data["responses"]}
        found = self.notes.interactions
        return [] if found is None else told_once(found.redundant, found.interactions, numbers)

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


def matrix(cells: Sequence[Cell], transcript: Transcript | None, notes: Notes = NO_NOTES) -> Matrix:
    """Arrange cells by memory and response, in order; ``notes`` are those on the matrix.

    Memories come by their largest measured effect: those beyond chance first, and last those that
    have estimates alone. With a ``transcript``, the cells of its responses; else those of the
    ``MOST_RESPONSES`` scored last.
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
    here.sort(key=lambda it: it.scored_at)
    found = {(cell.key, cell.node_id): cell for cell in here}
    measured = [it for it in found.values() if it.mode == "full"]
    spreads = {
        id_: max(spread, _place(notes, id_)) for id_, spread in column_spreads([measured]).items()
    }
    keys = _ranked(found.values(), spreads)
    rows = [[found.get((key, id_)) for id_ in nodes] for key in keys]
    noise = [[cell.noise if cell else None for cell in row] for row in rows]
    estimated = [[bool(cell and cell.mode == "estimate") for cell in row] for row in rows]
    memories = {} if transcript is None else memory_texts(transcript)
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
        "spread": [round(spreads.get(id_, 0.0), 4) for id_ in nodes],
        "place": [round(_place(notes, id_), 4) for id_ in nodes] if notes.placebo else None,
        "unmeasured": UNMEASURED_NOISE,
    }
    notes = replace(notes, interactions=_holding_still(notes, here, places))
    return Matrix(data, len(cells) - len(shown), len(newest) - len(nodes), notes)


def _holding_still(
    notes: Notes, cells: Iterable[Cell], places: Mapping[str, int]
) -> FoundInteractions | None:
    """Return those noted that are of the same texts as ``cells``, on the responses ``places``."""
    if notes.interactions is None:
        return None
    measured = sorted((it for it in cells if it.mode == "full"), key=lambda it: it.scored_at)
    hashes = {it.key: it.text_hash for it in measured}
    return notes.interactions.as_of_now(hashes, places)


def _ranked(cells: Iterable[Cell], spreads: Mapping[str, float]) -> list[str]:
    """Return the memories in the order of a matrix's rows."""
    ranks: dict[str, tuple[float, float, float]] = {}
    for it in cells:
        size, is_exact = abs(it.signed), it.mode == "full"
        is_clear = is_exact and size > noise_limit(it.noise, spreads.get(it.node_id, 0.0))
        # -1: nothing was measured of it.
        own = (size if is_clear else 0.0, size, 0.0) if is_exact else (-1.0, -1.0, size)
        clear, measured, guessed = map(max, own, ranks.get(it.key, own))
        ranks[it.key] = (clear, measured, guessed)
    return sorted(ranks, key=lambda key: (*(-it for it in ranks[key]), key))


def up_to_date(notes: Notes, cells: Iterable[Cell]) -> Notes:
    """Return the notes on a matrix that has the ``cells`` now."""
    if notes.screen is None:
        return notes
    measured, guesses = set[str](), []
    for it in cells:
        if it.mode == "full":
            measured.add(it.key)
        else:
            guesses.append(Estimate(it.key, it.node_id, it.entry_idx, it.signed))
    return replace(notes, screen=notes.screen.as_of_now(measured, tuple(guesses)))


def response_texts(transcript: Transcript | None) -> dict[str, str]:
    """Return the text of each response of a transcript, by node id."""
    if transcript is None:
        return {}
    return {id_: transcript.conversation[index].text for index, id_ in transcript.responses()}


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
    noted = (await Store(store).notes(model, conversation)).get(conversation, NO_NOTES)
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
        unseen = noted.screen.not_looked_at if noted.screen is not None else ()
        told = rows.keys() | {*unseen}
        talk = transcript or _stand_in(conversation, told, rows.values())
        keys = [key for key in talk.keys() if key in told]  # noqa: SIM118 - no mapping
        rows |= {key: [] for key in told - rows.keys()}
        measured = {key: [it for it in rows[key] if it.mode == "full"] for key in keys}
        guesses = [it for key in keys for it in rows[key] if it.mode == "estimate"]
        errors = [it.noise for it in guesses if it.noise is not None]
        found = {
            "transcript": talk,
            "scores": {key: _score(key, row) for key, row in measured.items() if row},
            "keys": tuple(keys),
            "screen": up_to_date(noted, (it for key in keys for it in rows[key])).screen,
            "estimates": tuple(
                Estimate(it.key, it.node_id, it.entry_idx, it.signed) for it in guesses
            ),
            "estimates_error": max(errors, default=None),
            "placebo": noted.placebo,
        }
        places = {it.node_id: it.entry_idx for row in rows.values() for it in row}
        of_now = _holding_still(noted, chain.from_iterable(rows.values()), places)
        if of_now is not None:
            found |= {"redundant": of_now.redundant, "interactions": of_now.interactions}
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
