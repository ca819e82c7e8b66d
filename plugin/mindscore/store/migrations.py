"""The way of a store from each earlier version to the next."""

from __future__ import annotations

STEPS: tuple[tuple[str, ...], ...] = (
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
    (
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
    ),
    (
        """
        CREATE TABLE speeds (
            server VARCHAR NOT NULL,
            model VARCHAR NOT NULL,
            device VARCHAR NOT NULL,
            prompt_tokens FLOAT NOT NULL,
            computed_tokens FLOAT,
            scoring_s FLOAT NOT NULL,
            generated_tokens FLOAT NOT NULL,
            generating_s FLOAT NOT NULL,
            loading_s FLOAT,
            measured_at FLOAT NOT NULL,
            PRIMARY KEY (server, model, device)
        )
        """,
    ),
    (
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
    ),
)
"""The statements from version 1 to 2, from 2 to 3, and so on; never changed: old files exist."""
