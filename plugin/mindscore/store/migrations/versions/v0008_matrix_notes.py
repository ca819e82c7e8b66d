"""Notes on matrices: the receipt of a screen, and the control of the places."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Float, String

revision = "0008"
down_revision: str | None = "0007"


def upgrade() -> None:
    """Bring a store of version 7 to version 8."""
    text = String().with_variant(String(collation="C"), "postgresql")
    op.create_table(
        "matrix_notes",
        Column("namespace", text, primary_key=True),
        Column("model", text, primary_key=True),
        Column("conversation", text, primary_key=True),
        Column("kind", text, primary_key=True),
        Column("note", text, nullable=False),
        Column("noted_at", Float, nullable=False),
    )
    op.create_index("matrix_notes_by_age", "matrix_notes", ["namespace", "noted_at"])
