"""The tables, and the version that a file of them bears (``PRAGMA user_version``)."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, MetaData, String, Table

VERSION = 1

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
