"""Rows of the matrix kept whole, and sends; indexes by age."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision: str | None = None

STATEMENTS = (
    """
    CREATE TABLE "rows" (
        namespace VARCHAR NOT NULL,
        "key" VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        fingerprint VARCHAR NOT NULL,
        "row" VARCHAR NOT NULL,
        scored_at FLOAT NOT NULL,
        PRIMARY KEY (namespace, "key", model)
    )
    """,
    """
    CREATE TABLE sends (
        namespace VARCHAR NOT NULL,
        timestamp_ns INTEGER NOT NULL,
        continuation_hash VARCHAR NOT NULL,
        idempotency_key VARCHAR NOT NULL,
        position INTEGER NOT NULL,
        sample VARCHAR NOT NULL,
        sent_at FLOAT NOT NULL,
        PRIMARY KEY (namespace, timestamp_ns, continuation_hash)
    )
    """,
    "CREATE INDEX cells_by_age ON cells (namespace, scored_at)",
    'CREATE INDEX rows_by_age ON "rows" (namespace, scored_at)',
    "CREATE INDEX candidates_by_age ON candidates (namespace, found_at)",
)


def upgrade() -> None:
    """Bring a SQLite file of version 1 to version 2."""
    for statement in STATEMENTS:
        op.execute(statement)
