"""The rows of the full matrix that a namespace keeps whole, so that a later run can go on."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Connection

from mindhooks import MemoryScore
from mindscore.store.namespace import NamespaceTables
from mindscore.store.records import intact, row_id
from mindscore.store.schema import cells, memory_texts, rows
from mindscore.store.scores import believable
from mindscore.store.seen import NOT_SEEN, Seen, keep_evidence
from mindscore.store.transactions import replacing, scored_later, upsert


class MatrixRows(NamespaceTables):
    """The rows of the matrix of one namespace: a part of ``Store``."""

    async def record_row(
        self,
        score: MemoryScore,
        model: str,
        *,
        conversation: str = "",
        text_hash: str = "",
        seen: Seen = NOT_SEEN,
    ) -> None:
        """Keep a row of the full matrix, signed values included, and the text of ``seen``.

        A row with a fingerprint is kept whole, too, except the values of single tokens.
        """
        now = time.time()
        about = self._with_namespace(
            key=score.key,
            text_hash=text_hash,
            model=model,
            conversation=conversation,
            scored_at=now,
        )

        def work(connection: Connection) -> None:
            self._prune(connection, cells.c.scored_at, rows.c.scored_at, memory_texts.c.last_seen)
            keep_evidence(connection, score, seen, about)
            whole = self._whole_rows([score], model, conversation, now)
            upsert(connection, rows, whole, replacing(rows))

        await self._database.write(work)

    def _whole_rows(
        self, scores: Iterable[MemoryScore], model: str, conversation: str, scored_at: float
    ) -> list[dict[str, Any]]:
        about = self._with_namespace(model=model, conversation=conversation, scored_at=scored_at)
        return [
            {**about, "key": it.key, "fingerprint": it.fingerprint, "row": encode_row(it)}
            for it in scores
            if it.fingerprint is not None
        ]

    async def add_rows(
        self, scores: Iterable[MemoryScore], model: str, conversation: str, scored_at: float
    ) -> None:
        """Keep rows that were measured elsewhere whole, as far as they have a fingerprint.

        ``scored_at`` is in seconds since the epoch. Of two rows of one memory the later is kept.
        """
        if not (whole := self._whole_rows(scores, model, conversation, scored_at)):
            return
        await self._database.write(
            lambda connection: upsert(
                connection, rows, whole, replacing(rows), where=scored_later(rows)
            )
        )

    async def rows(self, model: str, conversation: str | None = None) -> dict[str, MemoryScore]:
        """Return the rows of the matrix that are kept whole, by memory; the latest of each.

        With a ``conversation``, only its rows.
        """
        query = self._select(rows, row_id(rows), rows.c.row).where(rows.c.model == model)
        query = query.order_by(believable(rows.c.scored_at))
        if conversation is not None:
            query = query.where(rows.c.conversation == conversation)

        def work(connection: Connection) -> dict[str, MemoryScore]:
            return {it.key: it for it in intact(rows, connection.execute(query), decode_row)}

        return await self._database.read(work)


def encode_row(score: MemoryScore) -> str:
    """Return a row of the matrix as it is kept: JSON, without the values of single tokens."""
    return msgspec.json.encode(_without_tokens(score)).decode()


def _without_tokens(score: MemoryScore) -> MemoryScore:
    hold = score.hold
    return replace(
        score,
        divergences=tuple(replace(it, tokens=None) for it in score.divergences),
        hold=None if hold is None else tuple(replace(it, tokens=None) for it in hold),
    )


def decode_row(row: str) -> MemoryScore | None:
    """Return a row as ``encode_row`` has written it; ``None``: it has a value that JSON lacks."""
    try:
        return msgspec.json.decode(row, type=MemoryScore)
    except msgspec.ValidationError:
        # No infinity: an unchecked scorer's row is measured again.
        return None
