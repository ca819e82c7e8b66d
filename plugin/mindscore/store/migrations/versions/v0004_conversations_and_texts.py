"""Scores by conversation and by the memory's text."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision: str | None = "0003"

STATEMENTS = (
    """
    CREATE TABLE conversation_scores (
        namespace VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        conversation VARCHAR NOT NULL,
        "key" VARCHAR NOT NULL,
        text_hash VARCHAR NOT NULL,
        score FLOAT NOT NULL,
        scored_at FLOAT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (namespace, model, conversation, "key", text_hash)
    )
    """,
    """
    INSERT INTO conversation_scores
    SELECT namespace, model, '', "key", '', score, last_scored, count
    FROM memories WHERE last_scored IS NOT NULL
    """,
    """
    CREATE TABLE memories_by_text (
        namespace VARCHAR NOT NULL,
        "key" VARCHAR NOT NULL,
        text_hash VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        score FLOAT NOT NULL,
        weight FLOAT NOT NULL,
        last_scored FLOAT,
        count INTEGER NOT NULL,
        PRIMARY KEY (namespace, "key", text_hash, model)
    )
    """,
    """
    INSERT INTO memories_by_text
    SELECT namespace, "key", '', model, score, weight, last_scored, count FROM memories
    """,
    "DROP TABLE memories",
    "ALTER TABLE memories_by_text RENAME TO memories",
    """
    CREATE TABLE cells_by_conversation (
        namespace VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        conversation VARCHAR NOT NULL,
        "key" VARCHAR NOT NULL,
        text_hash VARCHAR NOT NULL,
        node_id VARCHAR NOT NULL,
        entry_idx INTEGER NOT NULL,
        divergence FLOAT NOT NULL,
        signed FLOAT NOT NULL,
        scored_at FLOAT NOT NULL,
        noise FLOAT,
        PRIMARY KEY (namespace, model, conversation, "key", text_hash, node_id)
    )
    """,
    """
    INSERT INTO cells_by_conversation
    SELECT namespace, model, '', "key", '', node_id, entry_idx, divergence, signed, scored_at,
           noise
    FROM cells
    """,
    "DROP TABLE cells",
    "ALTER TABLE cells_by_conversation RENAME TO cells",
    "CREATE INDEX cells_by_age ON cells (namespace, scored_at)",
    """
    CREATE TABLE rows_by_conversation (
        namespace VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        conversation VARCHAR NOT NULL,
        "key" VARCHAR NOT NULL,
        fingerprint VARCHAR NOT NULL,
        "row" VARCHAR NOT NULL,
        scored_at FLOAT NOT NULL,
        PRIMARY KEY (namespace, model, conversation, "key")
    )
    """,
    """
    INSERT INTO rows_by_conversation
    SELECT namespace, model, '', "key", fingerprint, "row", scored_at FROM "rows"
    """,
    'DROP TABLE "rows"',
    'ALTER TABLE rows_by_conversation RENAME TO "rows"',
    'CREATE INDEX rows_by_age ON "rows" (namespace, scored_at)',
    "ALTER TABLE candidates ADD COLUMN conversation VARCHAR DEFAULT '' NOT NULL",
    "ALTER TABLE candidates ADD COLUMN earlier INTEGER DEFAULT 0 NOT NULL",
    "UPDATE candidates SET earlier = 1",
    """
    CREATE TABLE weights_by_run (
        namespace VARCHAR NOT NULL,
        "key" VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        text_hash VARCHAR NOT NULL,
        conversation VARCHAR NOT NULL,
        run VARCHAR NOT NULL,
        scored_at FLOAT NOT NULL,
        score FLOAT NOT NULL,
        weight FLOAT NOT NULL,
        PRIMARY KEY (namespace, "key", model, text_hash, conversation, run)
    )
    """,
    """
    INSERT INTO weights_by_run
    SELECT namespace, "key", model, '', '', 'before-runs-' || rowid, scored_at, score, weight
    FROM weights
    """,
    "DROP TABLE weights",
    "ALTER TABLE weights_by_run RENAME TO weights",
    "CREATE INDEX weights_by_age ON weights (namespace, scored_at)",
)


def upgrade() -> None:
    """Bring a SQLite file of version 3 to version 4."""
    for statement in STATEMENTS:
        op.execute(statement)
