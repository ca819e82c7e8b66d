"""The way of a store from each earlier version to the newest: revisions that Alembic runs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from sqlalchemy import Connection, column, table

from mindscore.store.schema import Schema

_one_at_a_time = threading.Lock()
"""Alembic keeps what it is doing in variables of its modules."""

# A child of a process that migrates begins with the lock free.
os.register_at_fork(
    before=_one_at_a_time.acquire,
    after_in_parent=_one_at_a_time.release,
    after_in_child=_one_at_a_time.release,
)


def migrate(
    connection: Connection, schema: Schema, version: int | None, target: int | None = None
) -> None:
    """Bring a database of ``version``, ``None`` for an empty one, to ``target``, else the newest.

    It is done within the connection's transaction. What is new gets its tables at once, without
    Alembic, which takes a second to import.
    """
    newest = schema.version if target is None else target
    if version == newest:
        return
    if version is None:
        schema.metadata.create_all(connection, checkfirst=False)
        if schema.has_history:
            _stamp(connection, newest)
    else:
        _upgrade(connection, version, newest)
    if connection.dialect.name == "sqlite":
        # What the version is read from, here and in every earlier version.
        connection.exec_driver_sql(f"PRAGMA user_version = {newest}")


def revision_of(version: int) -> str:
    """Return the name of the Alembic revision that leads to ``version``."""
    return f"{version:04d}"


def _stamp(connection: Connection, version: int) -> None:
    """Record in Alembic's table which version the database has."""
    connection.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    alembic_version = table("alembic_version", column("version_num"))
    connection.execute(alembic_version.delete())
    connection.execute(alembic_version.insert(), [{"version_num": revision_of(version)}])


def _upgrade(connection: Connection, version: int, target: int) -> None:
    from alembic import command
    from alembic.config import Config

    # The first version has no revision of its own: the history begins with it.
    if version > 1:
        _stamp(connection, version)
    config = Config()
    # A percent sign would begin a variable.
    here = str(Path(__file__).parent).replace("%", "%%")
    config.set_main_option("script_location", here)
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, revision_of(target))
