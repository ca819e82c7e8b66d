"""Stores of every version there has been: ``stores/`` has one of each, made by its own code."""

import asyncio
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from mindhooks import FinetuneCandidate, MemoryScore, ResponseDivergence, TrainingSample
from mindscore._util.errors import StoreError
from mindscore.config.settings import StoreSettings
from mindscore.store import Sends, Store
from mindscore.store.migrations import migrate
from mindscore.store.schema import STORE

STORES = Path(__file__).parent
OLD = [int(re.sub(r"\D", "", file.stem)) for file in sorted(STORES.glob("version-*.sql"))]
VERSION = STORE.version
WHOLE = MemoryScore("new", 1.0, "full", (ResponseDivergence(0, "n", 1.0, 1.0),), None, "f")


def lay_out(file, version):
    """Make the store of a version that has passed."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript((STORES / f"version-{version}.sql").read_text(encoding="utf-8"))


def contents(file):
    """Every table's rows, and the version."""
    with closing(sqlite3.connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        rows = {
            name: [dict(it) for it in connection.execute(f'SELECT * FROM "{name}"')]
            for (name,) in names
        }
        [version] = connection.execute("PRAGMA user_version").fetchone()
        return version, rows


def as_now(version, tables):
    """The rows of an old store as they are to be in one of this version."""
    if version < 3:
        for row in tables["cells"]:
            row["noise"] = None
        for row in tables["trained"]:
            row["sink"] = "http" if row["continuation_hash"] else ""
        for row in tables.get("sends", ()):
            row["sink"] = "http"
    if version < 4:
        as_of_version_4(tables)
    for row in tables.get("runs", ()) if version < 10 else ():
        row |= {"threshold": None, "max_divergence": None, "sent_tokens": None}
    if version >= 6:
        return tables
    for row in tables["cells"]:
        row |= {"mode": "full", "hold": None, "tokens": None, "responded_at": None}
    return tables


def as_of_version_4(tables):
    """Set what was not told apart before: the memory's text, the conversation, the run."""
    for table in ("memories", "cells", "weights"):
        for row in tables.get(table, ()):
            row["text_hash"] = ""
    for table in ("cells", "rows", "weights", "candidates"):
        for row in tables.get(table, ()):
            row["conversation"] = ""
    for row in tables["candidates"]:
        row["earlier"] = 1
    for number, row in enumerate(tables.get("weights", ()), start=1):
        row["run"] = f"before-runs-{number}"


def shape(connection):
    """Tables with their columns and indexes with theirs, as SQLite sees them."""
    found = {}
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'alembic_version'"
    for (table,) in connection.execute(tables).fetchall():
        columns = connection.execute(f'PRAGMA table_xinfo("{table}")').fetchall()
        indexes = connection.execute(f'PRAGMA index_list("{table}")').fetchall()
        found[table] = (
            columns,
            {
                (name, unique, origin, partial): connection.execute(
                    f'PRAGMA index_xinfo("{name}")'
                ).fetchall()
                for _, name, unique, origin, partial in indexes
            },
        )
    return found


def shape_after(version, target):
    """What SQLite sees of a store of ``version``, ``None`` for an empty one, made ``target``."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        if version is not None:
            script = (STORES / f"version-{version}.sql").read_text(encoding="utf-8")
            connection.connection.driver_connection.executescript(script)
        migrate(connection, STORE, version, target)
        return shape(connection.connection.driver_connection)


def test_there_is_a_store_of_every_version_that_has_passed():
    assert list(range(1, VERSION)) == OLD


@pytest.mark.parametrize("version", OLD)
def test_an_old_store_gets_exactly_the_tables_of_a_new_one(version):
    assert shape_after(version, VERSION) == shape_after(None, VERSION)


@pytest.mark.parametrize("version", OLD[:-1])
def test_each_step_makes_what_the_code_of_its_time_made(version):
    assert shape_after(version, version + 1) == shape_after(version + 1, version + 1)


@pytest.mark.parametrize("version", OLD)
async def test_an_old_store_keeps_every_row_and_works(version, tmp_path):
    file = tmp_path / "store"
    lay_out(file, version)
    was, before = contents(file)
    assert was == version
    assert all(before.values())
    store = Store(StoreSettings(f"sqlite:///{file}", retention_days=0))
    memories = await store.memories()
    now, after = contents(file)
    assert now == VERSION
    before = as_now(version, before)
    assert {name: after[name] for name in before} == before
    assert len(memories) == sum(row["namespace"] == "default" for row in before["memories"])

    await store.record_score(MemoryScore("new", 1.0, "incremental", ()), "m", 0.3)
    await store.record_row(WHOLE, "m")
    assert await store.rows("m") == {"new": WHOLE}
    sends = Sends(StoreSettings(f"sqlite:///{file}"))
    candidate = FinetuneCandidate(0, "n", 1.0, "", "", (1,), (), (2,), None, None, 9)
    sample = TrainingSample((1,), (2,), None, "full", candidate, "m", "default")
    assert await sends.reserve("key", [sample], "http") == [sample]
    assert await sends.samples("key") == [sample]
    _, after = contents(file)
    for name, rows in before.items():
        assert [row for row in after[name] if row in rows] == rows


@pytest.mark.parametrize("version", OLD)
async def test_many_that_meet_an_old_store_at_once_migrate_it_once(version, tmp_path):
    file = tmp_path / "store"
    lay_out(file, version)
    _, before = contents(file)
    settings = StoreSettings(f"sqlite:///{file}")
    every = await asyncio.gather(*(Store(settings).memories() for _ in range(20)))
    assert every == [every[0]] * 20
    now, after = contents(file)
    assert now == VERSION
    before = as_now(version, before)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("version", OLD)
async def test_a_migration_that_fails_leaves_the_old_store(version, tmp_path):
    file = tmp_path / "store"
    lay_out(file, version)
    with closing(sqlite3.connect(file)) as connection:
        # In the way of the last step.
        connection.execute("CREATE TABLE reservations (pass)")
    before = file.read_bytes()
    with pytest.raises(StoreError, match=r"store.*reservations"):
        await Store(StoreSettings(f"sqlite:///{file}")).memories()
    assert file.read_bytes() == before


async def test_a_score_of_before_is_taken_for_the_text_that_is_scored_next(tmp_path, clock):
    file = tmp_path / "store"
    lay_out(file, 3)
    store = Store(StoreSettings(f"sqlite:///{file}", retention_days=0))
    [before] = [it for it in await store.memories() if it.key == "tea"]
    assert before.text_hash == ""
    assert await store.last_scored("toy", "talk", {"tea": "t1"}) == {}
    score = MemoryScore("tea", 8.0, "incremental", ())
    await store.record_score(score, "toy", 0.5, conversation="talk", text_hash="t1", run="r")
    [after] = [it for it in await store.memories() if it.key == "tea"]
    assert (after.text_hash, after.weight) == ("t1", 0.5 * 8.0 + 0.5 * before.weight)
    assert after.count == before.count + 1
    assert await store.last_scored("toy", "talk", {"tea": "t1"}) == {"tea": clock.now}


@pytest.mark.parametrize("version", [OLD[0], OLD[-1]])
def test_processes_that_meet_an_old_store_at_once_migrate_it_once(version, tmp_path):
    file = tmp_path / "store"
    lay_out(file, version)
    _, before = contents(file)
    code = (
        "import asyncio, sys\n"
        "from mindscore.config.settings import StoreSettings\n"
        "from mindscore.store import Store\n"
        "print(len(asyncio.run(Store(StoreSettings(sys.argv[1])).memories())))"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{file}"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    counts = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0] * 6
    assert counts == {f"{sum(row['namespace'] == 'default' for row in before['memories'])}\n"}
    now, after = contents(file)
    assert now == VERSION
    assert after["alembic_version"] == [{"version_num": f"{VERSION:04d}"}]
    before = as_now(version, before)
    assert {name: after[name] for name in before} == before
