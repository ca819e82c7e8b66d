"""Weights over time, runs and reviews; a sink for each mark and send."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision: str | None = "0002"

STATEMENTS = (
    """
    CREATE TABLE weights (
        namespace VARCHAR NOT NULL,
        "key" VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        scored_at FLOAT NOT NULL,
        score FLOAT NOT NULL,
        weight FLOAT NOT NULL,
        PRIMARY KEY (namespace, "key", model, scored_at)
    )
    """,
    """
    CREATE TABLE runs (
        id INTEGER NOT NULL,
        namespace VARCHAR NOT NULL,
        command VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        started_at FLOAT NOT NULL,
        seconds FLOAT NOT NULL,
        calls INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        computed_tokens INTEGER,
        found INTEGER NOT NULL,
        considered INTEGER NOT NULL,
        error VARCHAR,
        PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE reviews (
        id INTEGER NOT NULL,
        namespace VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        timestamp_ns INTEGER NOT NULL,
        continuation_hash VARCHAR NOT NULL,
        review VARCHAR NOT NULL,
        decided_at FLOAT NOT NULL,
        PRIMARY KEY (id)
    )
    """,
    "ALTER TABLE cells ADD COLUMN noise FLOAT",
    "CREATE INDEX weights_by_age ON weights (namespace, scored_at)",
    "CREATE INDEX runs_by_age ON runs (namespace, started_at)",
    """
    CREATE INDEX reviews_by_candidate
    ON reviews (namespace, model, timestamp_ns, continuation_hash)
    """,
    # What there was of these went to the one trainer that there was.
    """
    CREATE TABLE trained_by (
        namespace VARCHAR NOT NULL,
        timestamp_ns INTEGER NOT NULL,
        continuation_hash VARCHAR NOT NULL,
        sink VARCHAR NOT NULL,
        job_id VARCHAR,
        trained_at FLOAT NOT NULL,
        PRIMARY KEY (namespace, timestamp_ns, continuation_hash, sink)
    )
    """,
    """
    INSERT INTO trained_by
    SELECT namespace, timestamp_ns, continuation_hash,
           CASE continuation_hash WHEN '' THEN '' ELSE 'http' END, job_id, trained_at
    FROM trained
    """,
    "DROP TABLE trained",
    "ALTER TABLE trained_by RENAME TO trained",
    """
    CREATE TABLE sends_to (
        namespace VARCHAR NOT NULL,
        timestamp_ns INTEGER NOT NULL,
        continuation_hash VARCHAR NOT NULL,
        sink VARCHAR NOT NULL,
        idempotency_key VARCHAR NOT NULL,
        position INTEGER NOT NULL,
        sample VARCHAR NOT NULL,
        sent_at FLOAT NOT NULL,
        PRIMARY KEY (namespace, timestamp_ns, continuation_hash, sink)
    )
    """,
    """
    INSERT INTO sends_to
    SELECT namespace, timestamp_ns, continuation_hash, 'http', idempotency_key, position,
           sample, sent_at
    FROM sends
    """,
    "DROP TABLE sends",
    "ALTER TABLE sends_to RENAME TO sends",
)


def upgrade() -> None:
    """Bring a SQLite file of version 2 to version 3."""
    for statement in STATEMENTS:
        op.execute(statement)
