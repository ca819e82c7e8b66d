"""How a store gets from each version to the next; a new one goes through all of them."""

from __future__ import annotations

from sqlalchemy import Connection

# What is here is never changed: files of every version there has been are to be read.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE memories (
            namespace VARCHAR NOT NULL,
            "key" VARCHAR NOT NULL,
            model VARCHAR NOT NULL,
            score FLOAT NOT NULL,
            weight FLOAT NOT NULL,
            last_scored FLOAT,
            count INTEGER NOT NULL,
            PRIMARY KEY (namespace, "key", model)
        )
        """,
        """
        CREATE TABLE cells (
            namespace VARCHAR NOT NULL,
            "key" VARCHAR NOT NULL,
            model VARCHAR NOT NULL,
            node_id VARCHAR NOT NULL,
            entry_idx INTEGER NOT NULL,
            divergence FLOAT NOT NULL,
            signed FLOAT NOT NULL,
            scored_at FLOAT NOT NULL,
            PRIMARY KEY (namespace, "key", model, node_id)
        )
        """,
        """
        CREATE TABLE candidates (
            namespace VARCHAR NOT NULL,
            model VARCHAR NOT NULL,
            timestamp_ns INTEGER NOT NULL,
            continuation_hash VARCHAR NOT NULL,
            divergence FLOAT NOT NULL,
            candidate VARCHAR NOT NULL,
            found_at FLOAT NOT NULL,
            PRIMARY KEY (namespace, model, timestamp_ns, continuation_hash)
        )
        """,
        """
        CREATE TABLE trained (
            namespace VARCHAR NOT NULL,
            timestamp_ns INTEGER NOT NULL,
            continuation_hash VARCHAR NOT NULL,
            job_id VARCHAR,
            trained_at FLOAT NOT NULL,
            PRIMARY KEY (namespace, timestamp_ns, continuation_hash)
        )
        """,
    ),
    (
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
    ),
    (
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
    ),
)

VERSION = len(_MIGRATIONS)
"""What a file is brought to, and bears (``PRAGMA user_version``)."""


def migrate(connection: Connection, version: int, target: int = VERSION) -> None:
    """Bring a store of ``version``, 0 for an empty file, to ``target``, in this transaction."""
    if version >= target:
        return
    for statement in (it for step in _MIGRATIONS[version:target] for it in step):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(f"PRAGMA user_version = {target}")
