"""Verifications of advice: joint removals that were measured, and receipts."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Float, String

revision = "0007"
down_revision: str | None = "0006"


def upgrade() -> None:
    """Bring a store of version 6 to version 7."""
    text = String().with_variant(String(collation="C"), "postgresql")
    op.create_table(
        "removals",
        Column("namespace", text, primary_key=True),
        Column("model", text, primary_key=True),
        Column("conversation", text, primary_key=True),
        Column("fingerprint", text, primary_key=True),
        Column("removal", text, nullable=False),
        Column("measured_at", Float, nullable=False),
    )
    op.create_index("removals_by_age", "removals", ["namespace", "measured_at"])
    op.create_table(
        "receipts",
        Column("namespace", text, primary_key=True),
        Column("model", text, primary_key=True),
        Column("receipt", text, nullable=False),
        Column("verified_at", Float, nullable=False),
    )
