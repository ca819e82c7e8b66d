"""The ledger of internalisation: rounds of training, and the responses that each has measured."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Float, Integer, String

revision = "0009"
down_revision: str | None = "0008"


def upgrade() -> None:
    """Bring a store of the version before to version 9."""
    text = String().with_variant(String(collation="C"), "postgresql")
    number = BigInteger().with_variant(Integer(), "sqlite")
    op.create_table(
        "rounds",
        Column("namespace", text, primary_key=True),
        Column("model", text, primary_key=True),
        Column("round", text, primary_key=True),
        Column("adapter", text, nullable=False),
        Column("unrelated", text, nullable=False),
        Column("measured_at", Float, nullable=False),
    )
    op.create_table(
        "ledger",
        Column("namespace", text, primary_key=True),
        Column("model", text, primary_key=True),
        Column("round", text, primary_key=True),
        Column("key", text, primary_key=True),
        Column("text_hash", text, primary_key=True),
        Column("timestamp_ns", number, primary_key=True),
        Column("continuation_hash", text, primary_key=True),
        Column("tokens", number, nullable=False),
        Column("with_memories", Float, nullable=False),
        Column("without_memories", Float, nullable=False),
        Column("reworded", text, nullable=False),
        Column("measured_at", Float, nullable=False),
    )
