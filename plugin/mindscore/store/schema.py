"""The tables of each kind of database file, declared once, and the way from older versions."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    text,
)

Int = BigInteger().with_variant(Integer(), "sqlite")
"""An integer of 64 bits, which SQLite calls otherwise."""

Str = String().with_variant(String(collation="C"), "postgresql")
"""A text, which PostgreSQL is to order as SQLite does: by its characters' numbers."""

metadata = MetaData()
"""The tables of a store of scores, as its newest version has them."""

# ``text_hash``: of a memory's text; empty: not known, as of an imported score or one kept by a
# version that did not tell texts apart. ``conversation``: ``Context.id``, which may be empty.
memories = Table(
    "memories",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("key", Str, primary_key=True),
    Column("text_hash", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    Column("score", Float, nullable=False),
    Column("weight", Float, nullable=False),
    # NULL: imported, never measured here. Seconds since the epoch.
    Column("last_scored", Float),
    Column("count", Int, nullable=False),
)

# The last incremental score of each memory in each conversation.
conversation_scores = Table(
    "conversation_scores",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    Column("conversation", Str, primary_key=True),
    Column("key", Str, primary_key=True),
    Column("text_hash", Str, primary_key=True),
    Column("score", Float, nullable=False),
    Column("scored_at", Float, nullable=False),
    Column("count", Int, nullable=False),
    Index("conversation_scores_by_age", "namespace", "scored_at"),
)

cells = Table(
    "cells",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    Column("conversation", Str, primary_key=True),
    Column("key", Str, primary_key=True),
    Column("text_hash", Str, primary_key=True),
    Column("node_id", Str, primary_key=True),
    # "full": of the matrix; "incremental": of a score; "estimate": of a screened matrix.
    Column("mode", Str, primary_key=True),
    Column("entry_idx", Int, nullable=False),
    Column("divergence", Float, nullable=False),
    Column("signed", Float, nullable=False),
    Column("scored_at", Float, nullable=False),
    Column("noise", Float),
    Column("hold", Float),
    # How many the response's body has.
    Column("tokens", Int),
    # The response's own time, in seconds since the epoch.
    Column("responded_at", Float),
    Index("cells_by_age", "namespace", "scored_at"),
)

# Each text that a scored memory has had.
memory_texts = Table(
    "memory_texts",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("key", Str, primary_key=True),
    Column("text_hash", Str, primary_key=True),
    # NULL: store.keep_texts was false.
    Column("text", Str),
    # How many a prompt has of it.
    Column("tokens", Int),
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Index("memory_texts_by_age", "namespace", "last_seen"),
)

# The conversations that scores are of, as they were when the last one was scored.
conversations = Table(
    "conversations",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("conversation", Str, primary_key=True),
    Column("source", Str, nullable=False),
    Column("title", Str, nullable=False),
    Column("responses", Int, nullable=False),
    Column("memories", Int, nullable=False),
    Column("tokens", Int, nullable=False),
    # Its first and last message's own times; NULL: they have none.
    Column("begun_at", Float),
    Column("ended_at", Float),
    Column("seen_at", Float, nullable=False),
    Index("conversations_by_age", "namespace", "seen_at"),
)

# What a pass over an archive has done: an unchanged conversation is not paid for again.
passes = Table(
    "passes",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    Column("conversation", Str, primary_key=True),
    Column("command", Str, primary_key=True),
    Column("fingerprint", Str, nullable=False),
    Column("done_at", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("calls", Int, nullable=False),
    Column("prompt_tokens", Int, nullable=False),
    # NULL: the server does not say.
    Column("computed_tokens", Int),
    Column("error", Str),
    Index("passes_by_age", "namespace", "done_at"),
)

# The effects of joint removals, for a verification of advice that goes on where another one ended.
removals = Table(
    "removals",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    Column("conversation", Str, primary_key=True),
    # Of all that the effects depend on: the text of the conversation, what is removed, settings.
    Column("fingerprint", Str, primary_key=True),
    Column("removal", Str, nullable=False),
    Column("measured_at", Float, nullable=False),
    Index("removals_by_age", "namespace", "measured_at"),
)

# The last receipt of a model's advice.
receipts = Table(
    "receipts",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    Column("receipt", Str, nullable=False),
    Column("verified_at", Float, nullable=False),
)

# What a conversation's last matrix came with: a screen's receipt, a control of the places, memories
# that hide or need each other.
matrix_notes = Table(
    "matrix_notes",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    Column("conversation", Str, primary_key=True),
    # "screen", "placebo" or "interactions".
    Column("kind", Str, primary_key=True),
    Column("note", Str, nullable=False),
    Column("noted_at", Float, nullable=False),
    Index("matrix_notes_by_age", "namespace", "noted_at"),
)

# Rows of the matrix whole, for a run that goes on where another one ended.
rows = Table(
    "rows",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    Column("conversation", Str, primary_key=True),
    Column("key", Str, primary_key=True),
    Column("fingerprint", Str, nullable=False),
    Column("row", Str, nullable=False),
    Column("scored_at", Float, nullable=False),
    Index("rows_by_age", "namespace", "scored_at"),
)

candidates = Table(
    "candidates",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    Column("timestamp_ns", Int, primary_key=True),
    Column("continuation_hash", Str, primary_key=True),
    Column("divergence", Float, nullable=False),
    Column("candidate", Str, nullable=False),
    Column("found_at", Float, nullable=False),
    Column("conversation", Str, nullable=False, server_default=""),
    # 1: its timestamp, if it had none, was derived by version 3, which hashed the whole prompt.
    Column("earlier", Int, nullable=False, server_default=text("0")),
    Index("candidates_by_age", "namespace", "found_at"),
)

trained = Table(
    "trained",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("timestamp_ns", Int, primary_key=True),
    # Empty: imported from a list of timestamps, and matched by the timestamp alone.
    Column("continuation_hash", Str, primary_key=True),
    # Which has accepted it; empty for what was imported, which counts for every one.
    Column("sink", Str, primary_key=True),
    Column("job_id", Str),
    Column("trained_at", Float, nullable=False),
)

# What was sent to a trainer, or is being sent, as long as it is not known whether it was accepted.
sends = Table(
    "sends",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("timestamp_ns", Int, primary_key=True),
    Column("continuation_hash", Str, primary_key=True),
    Column("sink", Str, primary_key=True),
    Column("idempotency_key", Str, nullable=False),
    Column("position", Int, nullable=False),
    Column("sample", Str, nullable=False),
    Column("sent_at", Float, nullable=False),
)

# Each score of ``memories`` as it was found, and the weight that it led to.
weights = Table(
    "weights",
    metadata,
    Column("namespace", Str, primary_key=True),
    Column("key", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    Column("text_hash", Str, primary_key=True),
    Column("conversation", Str, primary_key=True),
    # The id of the run: a score that is told twice counts once.
    Column("run", Str, primary_key=True),
    Column("scored_at", Float, nullable=False),
    Column("score", Float, nullable=False),
    Column("weight", Float, nullable=False),
    Index("weights_by_age", "namespace", "scored_at"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Int, primary_key=True),
    Column("namespace", Str, nullable=False),
    Column("command", Str, nullable=False),
    Column("model", Str, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("calls", Int, nullable=False),
    Column("prompt_tokens", Int, nullable=False),
    Column("computed_tokens", Int),
    Column("found", Int, nullable=False),
    Column("considered", Int, nullable=False),
    Column("error", Str),
    # Of a search for candidates, in nats; NULL: another command, or of an older version.
    Column("threshold", Float),
    Column("max_divergence", Float),
    # All that a server may have read or generated; NULL: ``prompt_tokens``.
    Column("sent_tokens", Int),
    Index("runs_by_age", "namespace", "started_at"),
)

# What the calls of one model take, of whatever namespace: sums of which earlier runs count less.
speeds = Table(
    "speeds",
    metadata,
    # As ``ServerSettings.place``.
    Column("server", Str, primary_key=True),
    Column("model", Str, primary_key=True),
    # Empty: the server's own.
    Column("device", Str, primary_key=True),
    Column("prompt_tokens", Float, nullable=False),
    # NULL: the server does not say.
    Column("computed_tokens", Float),
    Column("scoring_s", Float, nullable=False),
    Column("generated_tokens", Float, nullable=False),
    Column("generating_s", Float, nullable=False),
    # NULL: nothing is loaded in this process.
    Column("loading_s", Float),
    Column("measured_at", Float, nullable=False),
)

# Every decision on a candidate, the last of which counts; undone, it is gone.
reviews = Table(
    "reviews",
    metadata,
    Column("id", Int, primary_key=True),
    Column("namespace", Str, nullable=False),
    Column("model", Str, nullable=False),
    Column("timestamp_ns", Int, nullable=False),
    Column("continuation_hash", Str, nullable=False),
    Column("review", Str, nullable=False),
    Column("decided_at", Float, nullable=False),
    Index("reviews_by_candidate", "namespace", "model", "timestamp_ns", "continuation_hash"),
)


@dataclass(frozen=True, slots=True)
class Schema:
    """A kind of database: its name in messages, its tables and its version.

    ``tables`` are those that every version has, from ``first`` on; those before ``version``, if
    there are any, are brought to it by ``migrations``. A file bears its version in
    ``PRAGMA user_version``.

    ``beside_agent``: an agent waits for its transactions. They wait for others briefly, and
    outlive the process, yet the newest may be lost with the machine.
    """

    name: str
    metadata: MetaData
    tables: frozenset[str]
    first: int
    version: int
    beside_agent: bool = False

    @property
    def has_history(self) -> bool:
        """True if there are earlier versions."""
        return self.version > self.first


STORE = Schema(
    "the store", metadata, frozenset({"memories", "cells", "candidates", "trained"}), 1, 10
)
