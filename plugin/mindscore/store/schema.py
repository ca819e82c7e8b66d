"""The tables as the newest version has them; ``migrations`` makes them."""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table

metadata = MetaData()

memories = Table(
    "memories",
    metadata,
    Column("namespace", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("score", Float, nullable=False),
    Column("weight", Float, nullable=False),
    # NULL: imported, never measured here. Seconds since the epoch.
    Column("last_scored", Float),
    Column("count", Integer, nullable=False),
)

cells = Table(
    "cells",
    metadata,
    Column("namespace", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("node_id", String, primary_key=True),
    Column("entry_idx", Integer, nullable=False),
    Column("divergence", Float, nullable=False),
    Column("signed", Float, nullable=False),
    Column("scored_at", Float, nullable=False),
    Index("cells_by_age", "namespace", "scored_at"),
)

# Rows of the matrix whole, for a run that goes on where another one ended.
rows = Table(
    "rows",
    metadata,
    Column("namespace", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("fingerprint", String, nullable=False),
    Column("row", String, nullable=False),
    Column("scored_at", Float, nullable=False),
    Index("rows_by_age", "namespace", "scored_at"),
)

candidates = Table(
    "candidates",
    metadata,
    Column("namespace", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("timestamp_ns", Integer, primary_key=True),
    Column("continuation_hash", String, primary_key=True),
    Column("divergence", Float, nullable=False),
    Column("candidate", String, nullable=False),
    Column("found_at", Float, nullable=False),
    Index("candidates_by_age", "namespace", "found_at"),
)

trained = Table(
    "trained",
    metadata,
    Column("namespace", String, primary_key=True),
    Column("timestamp_ns", Integer, primary_key=True),
    # Empty: imported from a list of timestamps, and matched by the timestamp alone.
    Column("continuation_hash", String, primary_key=True),
    Column("job_id", String),
    Column("trained_at", Float, nullable=False),
)

# What was sent to a trainer, or is being sent, as long as it is not known whether it was accepted.
sends = Table(
    "sends",
    metadata,
    Column("namespace", String, primary_key=True),
    Column("timestamp_ns", Integer, primary_key=True),
    Column("continuation_hash", String, primary_key=True),
    Column("idempotency_key", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("sample", String, nullable=False),
    Column("sent_at", Float, nullable=False),
)
