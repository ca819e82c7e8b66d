"""The speeds of models."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision: str | None = "0004"

STATEMENTS = (
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
)


def upgrade() -> None:
    """Bring a SQLite file of version 4 to version 5."""
    for statement in STATEMENTS:
        op.execute(statement)
