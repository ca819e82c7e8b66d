"""Inserting rows, and changing those that are there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects.sqlite import insert

Changes = Callable[[Any], Mapping[str, Any]]
"""What to set in a row that is there already, given the new one's columns."""


def upsert(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], changes: Changes
) -> None:
    """Insert ``rows``; where one is there already, set ``changes(the new row)`` instead."""
    if not rows:
        return
    statement = insert(table)
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key), set_=dict(changes(statement.excluded))
    )
    connection.execute(statement, rows)


def replacing(table: Table) -> Changes:
    """Set all columns that are not part of the primary key, as in the new row."""
    return lambda new: {c.name: new[c.name] for c in table.columns if not c.primary_key}
