"""Tokens that runs reserve; the threshold, largest divergence and tokens sent of each run."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, String

revision = "0010"
down_revision: str | None = "0009"


def upgrade() -> None:
    """Bring a store of the version before to version 10."""
    text = String().with_variant(String(collation="C"), "postgresql")
    number = BigInteger().with_variant(Integer(), "sqlite")
    op.create_table(
        "reservations",
        Column("namespace", text, primary_key=True),
        Column("id", text, primary_key=True),
        Column("tokens", number, nullable=False),
        Column("renewed_at", Float, nullable=False),
    )
    op.add_column("runs", Column("threshold", Float))
    op.add_column("runs", Column("max_divergence", Float))
    op.add_column("runs", Column("sent_tokens", number))
    op.create_index("conversation_scores_by_age", "conversation_scores", ["namespace", "scored_at"])
