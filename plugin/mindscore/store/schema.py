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
    Column("noise", Float),
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
    # Which has accepted it; empty for what was imported, which counts for every one.
    Column("sink", String, primary_key=True),
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
    Column("sink", String, primary_key=True),
    Column("idempotency_key", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("sample", String, nullable=False),
    Column("sent_at", Float, nullable=False),
)

# Each score of ``memories`` as it was found, and the weight that it led to.
weights = Table(
    "weights",
    metadata,
    Column("namespace", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("scored_at", Float, primary_key=True),
    Column("score", Float, nullable=False),
    Column("weight", Float, nullable=False),
    Index("weights_by_age", "namespace", "scored_at"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("namespace", String, nullable=False),
    Column("command", String, nullable=False),
    Column("model", String, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("computed_tokens", Integer),
    Column("found", Integer, nullable=False),
    Column("considered", Integer, nullable=False),
    Column("error", String),
    Index("runs_by_age", "namespace", "started_at"),
)

# Every decision on a candidate, the last of which counts; undone, it is gone.
reviews = Table(
    "reviews",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("namespace", String, nullable=False),
    Column("model", String, nullable=False),
    Column("timestamp_ns", Integer, nullable=False),
    Column("continuation_hash", String, nullable=False),
    Column("review", String, nullable=False),
    Column("decided_at", Float, nullable=False),
    Index("reviews_by_candidate", "namespace", "model", "timestamp_ns", "continuation_hash"),
)
