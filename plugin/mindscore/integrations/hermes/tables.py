"""The tables of Hermes' turns that wait, and of what was measured of its memories."""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text, text

from mindscore.store.schema import Schema

queue_metadata = MetaData()
"""The tables of Hermes' turns that wait to be scored."""

turns = Table(
    "turns",
    queue_metadata,
    Column("id", Integer, primary_key=True),
    Column("session", Text, nullable=False),
    # How many turns of the session it stands for.
    Column("turns", Integer, nullable=False),
    # How many messages, and how many bytes they take.
    Column("length", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("captured_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("about", Text, nullable=False),
    Column("messages", LargeBinary, nullable=False),
    Index("turns_by_session", "session"),
    # A turn that is being scored is known by its id, which no later one may get.
    sqlite_autoincrement=True,
)

facts = Table(
    "facts",
    queue_metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

findings_metadata = MetaData()
"""The tables of what was measured of Hermes' memories."""

hermes_memories = Table(
    "memories",
    findings_metadata,
    Column("key", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("seen_at", Float, nullable=False),
)

# The divergence of each response from what it is without a memory.
drops = Table(
    "drops",
    findings_metadata,
    Column("key", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("response", Text, primary_key=True),
    Column("divergence", Float, nullable=False),
    Column("measured_at", Float, nullable=False),
)

hermes_candidates = Table(
    "candidates",
    findings_metadata,
    Column("response", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("divergence", Float, nullable=False),
    Column("text", Text, nullable=False),
    Column("found_at", Float, nullable=False),
)

QUEUE = Schema(
    "the queue of turns", queue_metadata, frozenset({"turns", "facts"}), 0, 0, beside_agent=True
)
FINDINGS = Schema(
    "the findings",
    findings_metadata,
    frozenset({"memories", "drops", "candidates"}),
    0,
    0,
    beside_agent=True,
)
