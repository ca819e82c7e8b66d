"""The matrix's cells as the heat map takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mindscore.store import Cell
from mindscore.transcripts import Transcript

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
        if message.key is not None:
            texts.setdefault(message.key, message.text)
        for part in message.parts:
            if part.memory_key is not None:
                texts.setdefault(part.memory_key, part.text)
    return texts
