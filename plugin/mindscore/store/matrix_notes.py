"""Notes on the matrices of a namespace: the receipt of a screen, and the control of the places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import msgspec
from sqlalchemy import Connection

from mindscore.measure.placebo import PlaceboControl
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.store.namespace import NamespaceTables
from mindscore.store.records import intact, row_id
from mindscore.store.schema import matrix_notes
from mindscore.store.transactions import replacing, upsert


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes on one conversation's matrix, those of the last run that made any.

    ``screen`` comes without its estimates, which are cells; ``None``: there is none.
    """

    screen: ScreenReceipt | None = None
    placebo: PlaceboControl | None = None

    def __bool__(self) -> bool:
        """Return whether there is a note."""
        return self.screen is not None or self.placebo is not None

    @classmethod
    def of(cls, encoded: Mapping[str, str]) -> Self:
        """Return notes as they were kept: ``encoded``.

        Raises:
            ValueError: there is no such kind.
            msgspec.MsgspecError: one is damaged.
        """
        screen, placebo = encoded.get("screen"), encoded.get("placebo")
        if unknown := encoded.keys() - {"screen", "placebo"}:
            raise ValueError(f"kind: {min(unknown)!r} is none of a note")
        return cls(
            None if screen is None else msgspec.json.decode(screen, type=ScreenReceipt),
            None if placebo is None else msgspec.json.decode(placebo, type=PlaceboControl),
        )

    def encoded(self) -> dict[str, str]:
        """Return the notes that there are as they are kept: JSON, by kind."""
        screen = None if self.screen is None else replace(self.screen, estimates=())
        its = {"screen": screen, "placebo": self.placebo}
        return {
            kind: msgspec.json.encode(note).decode()
            for kind, note in its.items()
            if note is not None
        }


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
                known = found.get(id_, it)
                found[id_] = Notes(it.screen or known.screen, it.placebo or known.placebo)
            return found

        return await self._database.read(work)
