"""The matrix's cells as the heat map takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mindscore.store import Cell
from mindscore.transcripts import Transcript

NOT_KEPT = "Its text is not kept: mindscore review TRANSCRIPT shows it."
NOT_HERE = "It stands nowhere in this conversation."


@dataclass(frozen=True, slots=True)
class Matrix:
    """What the heat map is given, and how many cells are of other conversations."""

    data: dict[str, Any]
    elsewhere: int

    @property
    def size(self) -> tuple[int, int]:
        """How many memories and responses."""
        return len(self.data["memories"]), len(self.data["responses"])


def matrix(cells: Sequence[Cell], transcript: Transcript | None) -> Matrix:
    """The cells by memory, the most telling first, and response, in order.

    Where there is a ``transcript``, those of its responses; the store may hold others'.
    """
    texts = response_texts(transcript)
    here = [cell for cell in cells if transcript is None or cell.node_id in texts]
    largest: dict[str, float] = {}
    for cell in here:
        largest[cell.key] = max(largest.get(cell.key, 0.0), abs(cell.signed))
    keys = sorted(largest, key=lambda key: (-largest[key], key))
    nodes = sorted({(cell.entry_idx, cell.node_id) for cell in here})
    found = {(cell.key, cell.entry_idx, cell.node_id): cell for cell in here}
    rows = [[found.get((key, *node)) for node in nodes] for key in keys]
    noise = [[cell.noise if cell else None for cell in row] for row in rows]
    memories = memory_texts(transcript)
    unknown = NOT_KEPT if transcript is None else NOT_HERE
    data = {
        "memories": [{"key": key, "text": memories.get(key, unknown)} for key in keys],
        "responses": [
            {"entry_idx": index, "node_id": id_, "text": texts.get(id_, unknown)}
            for index, id_ in nodes
        ],
        "signed": [[cell.signed if cell else None for cell in row] for row in rows],
        "noise": noise if any(cell.noise is not None for cell in here) else None,
    }
    return Matrix(data, len(cells) - len(here))


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
