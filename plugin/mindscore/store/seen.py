"""Facts of a conversation that belong to a score, and the evidence that both make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, delete

from mindhooks import MemoryScore
from mindscore.store.archive import ConversationFacts, MemoryText, keep_conversation, keep_texts
from mindscore.store.schema import cells
from mindscore.store.transactions import replacing, upsert

Responses = Mapping[str, tuple[int | None, float | None]]
"""How many tokens each response has, and its own time, by node id; ``None``: not known."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The facts of a conversation that belong to a memory's score.

    ``text`` is the memory's, ``None`` where it is not to be kept, and ``tokens`` what a prompt has
    of it. ``responses``: by node id, how many tokens each has, and its own time in seconds since
    the epoch. ``None``: not known. ``conversation``: the facts of the whole.
    """

    text: str | None = None
    tokens: int | None = None
    responses: Responses = field(default_factory=dict)
    conversation: ConversationFacts | None = None


NOT_SEEN = Seen()
"""Nothing is known but the score."""


def keep_evidence(
    connection: Connection, score: MemoryScore, seen: Seen, about: Mapping[str, Any]
) -> None:
    """Keep a score's values, the memory's text and the conversation's facts, in a transaction.

    ``about`` has the columns that all values share: ``namespace``, ``model``, ``conversation``,
    ``key``, ``text_hash`` and ``scored_at``.
    """
    rows = [dict(about, **values) for values in cell_values(score, seen.responses)]
    if about["conversation"]:
        _remove_unknown(connection, rows)
    upsert(connection, cells, rows, replacing(cells))
    if about["text_hash"]:
        when = about["scored_at"]
        text = MemoryText(score.key, about["text_hash"], seen.text, seen.tokens, when, when)
        keep_texts(connection, about["namespace"], [text])
    if seen.conversation is not None:
        keep_conversation(connection, about["namespace"], seen.conversation)


def cell_values(score: MemoryScore, responses: Responses) -> list[dict[str, Any]]:
    """Return the columns of a score's cells that are of one response each."""
    hold = {it.node_id: it.signed for it in score.hold or ()}
    found = []
    for it in score.divergences:
        tokens, responded_at = responses.get(it.node_id, (None, None))
        found.append(
            {
                "mode": score.mode,
                "node_id": it.node_id,
                "entry_idx": it.entry_idx,
                "divergence": it.divergence,
                "signed": it.signed,
                "hold": hold.get(it.node_id),
                "noise": it.noise,
                "tokens": tokens,
                "responded_at": responded_at,
            }
        )
    return found


def _remove_unknown(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Remove the cells of ``rows`` that an older version kept: it told no conversations."""
    names = ("namespace", "model", "key", "node_id", "mode")
    same = [cells.c[name] == bindparam(f"_{name}") for name in names]
    gone = [{f"_{name}": row[name] for name in names} for row in rows]
    if gone:
        connection.execute(delete(cells).where(cells.c.conversation == "", *same), gone)
