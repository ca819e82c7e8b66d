"""Evidence: cells of both modes, texts of memories, conversations, passes."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision: str | None = "0005"

STATEMENTS = (
    """
    CREATE TABLE cells_by_mode (
        namespace VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        conversation VARCHAR NOT NULL,
        "key" VARCHAR NOT NULL,
        text_hash VARCHAR NOT NULL,
        node_id VARCHAR NOT NULL,
        mode VARCHAR NOT NULL,
        entry_idx INTEGER NOT NULL,
        divergence FLOAT NOT NULL,
        signed FLOAT NOT NULL,
        scored_at FLOAT NOT NULL,
        noise FLOAT,
        hold FLOAT,
        tokens INTEGER,
        responded_at FLOAT,
        PRIMARY KEY (namespace, model, conversation, "key", text_hash, node_id, mode)
    )
    """,
    """
    INSERT INTO cells_by_mode
    SELECT namespace, model, conversation, "key", text_hash, node_id, 'full', entry_idx,
           divergence, signed, scored_at, noise, NULL, NULL, NULL
    FROM cells
    """,
    "DROP TABLE cells",
    "ALTER TABLE cells_by_mode RENAME TO cells",
    "CREATE INDEX cells_by_age ON cells (namespace, scored_at)",
    """
    CREATE TABLE memory_texts (
        namespace VARCHAR NOT NULL,
        "key" VARCHAR NOT NULL,
        text_hash VARCHAR NOT NULL,
        text VARCHAR,
        tokens INTEGER,
        first_seen FLOAT NOT NULL,
        last_seen FLOAT NOT NULL,
        PRIMARY KEY (namespace, "key", text_hash)
    )
    """,
    "CREATE INDEX memory_texts_by_age ON memory_texts (namespace, last_seen)",
    """
    CREATE TABLE conversations (
        namespace VARCHAR NOT NULL,
        conversation VARCHAR NOT NULL,
        source VARCHAR NOT NULL,
        title VARCHAR NOT NULL,
        responses INTEGER NOT NULL,
        memories INTEGER NOT NULL,
        tokens INTEGER NOT NULL,
        begun_at FLOAT,
        ended_at FLOAT,
        seen_at FLOAT NOT NULL,
        PRIMARY KEY (namespace, conversation)
    )
    """,
    "CREATE INDEX conversations_by_age ON conversations (namespace, seen_at)",
    """
    CREATE TABLE passes (
        namespace VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        conversation VARCHAR NOT NULL,
        command VARCHAR NOT NULL,
        fingerprint VARCHAR NOT NULL,
        done_at FLOAT NOT NULL,
        seconds FLOAT NOT NULL,
        calls INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        computed_tokens INTEGER,
        error VARCHAR,
        PRIMARY KEY (namespace, model, conversation, command)
    )
    """,
    "CREATE INDEX passes_by_age ON passes (namespace, done_at)",
)


def upgrade() -> None:
    """Bring a SQLite file of version 5 to version 6."""
    for statement in STATEMENTS:
        op.execute(statement)
