"""The tables of turns that were sent here and wait to be scored."""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, LargeBinary, MetaData, Table, Text

from mindscore.store.schema import Int, Schema

collect_metadata = MetaData()

# A conversation, or one way that it went on: a fork has a row of its own.
branches = Table(
    "branches",
    collect_metadata,
    Column("id", Int, primary_key=True),
    # What its sender calls the conversation; empty: it has no name there.
    Column("scope", Text, nullable=False),
    # ``Context.id``, which no other branch has.
    Column("name", Text, nullable=False, unique=True),
    # Of what its last turn said: the turn that continues it begins so.
    Column("tip", LargeBinary, nullable=False),
    Column("seen_at", Float, nullable=False),
    # JSON: those that turns named which wait no more; NULL: none, or they are forgotten.
    Column("memories", LargeBinary),
    Index("branches_by_tip", "scope", "tip"),
    Index("branches_by_age", "seen_at"),
)

# Every turn that was seen, by a hash of all that was said until its end.
known_turns = Table(
    "known_turns",
    collect_metadata,
    Column("scope", Text, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("branch", Int, nullable=False),
    # NULL: it was seen within a later one only.
    Column("turn_id", Text),
    # The response's time, in nanoseconds since the epoch; NULL: not known.
    Column("at_ns", Int),
    # A hash of the system prompt that it was given under; NULL: not known.
    Column("prompt", LargeBinary),
    Index("known_by_turn", "turn_id"),
    Index("known_by_branch", "branch"),
)

waiting = Table(
    "waiting",
    collect_metadata,
    # A turn that is being scored is known by its id, which no later one may get.
    Column("id", Int, primary_key=True),
    Column("branch", Int, nullable=False, unique=True),
    # How many turns it stands for.
    Column("turns", Int, nullable=False),
    # In bytes.
    Column("size", Int, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("ready_at", Float, nullable=False),
    Column("attempts", Int, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index("waiting_by_size", "size"),
    Index("waiting_by_time", "ready_at", "id"),
    sqlite_autoincrement=True,
)

COLLECTED = Schema(
    "the queue of turns",
    collect_metadata,
    frozenset({"branches", "known_turns", "waiting"}),
    0,
    0,
)
