"""Notes on the matrices of a namespace: what a matrix came with, beside its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import msgspec
from sqlalchemy import Connection

from mindscore.measure.interactions import FoundInteractions
from mindscore.measure.placebo import PlaceboControl
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.store.namespace import NamespaceTables
from mindscore.store.records import intact, row_id
from mindscore.store.schema import matrix_notes
from mindscore.store.transactions import replacing, upsert


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes on one conversation's matrix, those of the last run that made any.

    Attributes:
        screen: the receipt of a screen, without its estimates, which are cells.
        placebo: the control of the places.
        interactions: the memories that hide or need each other, none where the run found none.
    """

    screen: ScreenReceipt | None = None
    placebo: PlaceboControl | None = None
    interactions: FoundInteractions | None = None

    def __bool__(self) -> bool:
        """Return whether there is a note."""
        return self != NO_NOTES

    @classmethod
    def of(cls, encoded: Mapping[str, str]) -> Self:
        """Return notes as they were kept: ``encoded``.

        Raises:
            ValueError: there is no such kind.
            msgspec.MsgspecError: one is damaged.
        """
        if unknown := encoded.keys() - KINDS.keys():
            raise ValueError(f"kind: {min(unknown)!r} is none of a note")
        notes = {kind: msgspec.json.decode(it, type=KINDS[kind]) for kind, it in encoded.items()}
        return cls(**notes)

    def encoded(self) -> dict[str, str]:
        """Return the notes that there are as they are kept: JSON, by kind."""
        screen = None if self.screen is None else replace(self.screen, estimates=())
        its = {kind: screen if kind == "screen" else getattr(self, kind) for kind in KINDS}
        return {
            kind: msgspec.json.encode(note).decode()
            for kind, note in its.items()
            if note is not None
        }

    def or_else(self, other: Notes) -> Notes:
        """Return these notes, and those of ``other`` that are lacking."""
        return replace(other, **{kind: it for kind in KINDS if (it := getattr(self, kind))})


KINDS: dict[str, Any] = {
    "screen": ScreenReceipt,
    "placebo": PlaceboControl,
    "interactions": FoundInteractions,
}
"""The types of notes, by the kind under which they are kept."""

NO_NOTES = Notes()


class MatrixNotes(NamespaceTables):
    """The notes on the matrices of one namespace: a part of ``Store``."""

    async def record_notes(
        self, model: str, conversation: str, notes: Notes, noted_at: float
    ) -> None:
        """Keep notes in the place of earlier ones of their kind.

        ``noted_at`` is in seconds since the epoch. A conversation that has no id is not known again
        by it: of such a one, nothing is kept.
        """
        about = self._with_namespace(model=model, conversation=conversation, noted_at=noted_at)
        rows = [{**about, "kind": kind, "note": note} for kind, note in notes.encoded().items()]
        if not (rows and conversation):
            return

        def work(connection: Connection) -> None:
            self._prune(connection, matrix_notes.c.noted_at)
            upsert(connection, matrix_notes, rows, replacing(matrix_notes))

        await self._database.write(work)

    async def notes(self, model: str, conversation: str | None = None) -> dict[str, Notes]:
        """Return the notes on matrices by ``model``, or on one, by conversation."""
        columns = (matrix_notes.c.conversation, matrix_notes.c.kind, matrix_notes.c.note)
        query = self._select(matrix_notes, row_id(matrix_notes), *columns)
        query = query.where(matrix_notes.c.model == model)
        if conversation is not None:
            query = query.where(matrix_notes.c.conversation == conversation)

        def decode(conversation: str, kind: str, note: str) -> tuple[str, Notes]:
            return conversation, Notes.of({kind: note})

        def work(connection: Connection) -> dict[str, Notes]:
            found: dict[str, Notes] = {}
            for id_, it in intact(matrix_notes, connection.execute(query), decode):
                found[id_] = it.or_else(found.get(id_, NO_NOTES))
            return found

        return await self._database.read(work)
