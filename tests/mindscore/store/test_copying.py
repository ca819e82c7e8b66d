"""One store copied to another: every version of SQLite to PostgreSQL, and back."""

import sqlite3
from contextlib import closing

import pytest

from mindhooks import MemoryScore, ResponseDivergence
from mindscore._util.errors import UsageError
from mindscore.config.settings import StoreSettings
from mindscore.store import History, Reviews, RunRecord, Sends, Store
from mindscore.store.copying import copy_store
from mindscore.store.schema import metadata

from .test_migrations import OLD, as_now, lay_out

NAMES = {table.name: [it.name for it in table.columns] for table in metadata.sorted_tables}


def contents(settings):
    """All rows of a store by table, whatever their numbers, in an order of their own."""
    database = Store(settings)._database

    def work(connection):
        found = {}
        for table in metadata.sorted_tables:
            rows = connection.execute(table.select()).mappings().all()
            rows = [{name: it[name] for name in it if name != "id"} for it in rows]
            found[table.name] = sorted(rows, key=repr)
        return found

    return database.read_now(work)


@pytest.mark.parametrize("version", OLD)
async def test_a_file_of_every_version_is_copied_whole_and_back(version, tmp_path, postgres_url):
    lay_out(tmp_path / "old", version)
    with closing(sqlite3.connect(tmp_path / "old")) as connection:
        connection.row_factory = sqlite3.Row
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        before = {
            name: [dict(it) for it in connection.execute(f'SELECT * FROM "{name}"')]
            for (name,) in names
        }
    old = StoreSettings(f"sqlite:///{tmp_path}/old", retention_days=0)
    new = StoreSettings(postgres_url, retention_days=0)
    counts = {it.table: it.rows for it in await copy_store(old, new)}
    expected = as_now(version, before)
    assert {name: counts[name] for name in expected} == {
        name: len(rows) for name, rows in expected.items()
    }
    found = contents(new)
    for name, rows in expected.items():
        rows = [{key: it[key] for key in it if key != "id"} for it in rows]
        assert found[name] == sorted(
            ({key: it[key] for key in NAMES[name] if key != "id"} for it in rows), key=repr
        )
    # Again, and back: nothing is doubled, nothing changes.
    await copy_store(old, new)
    assert contents(new) == found
    back = StoreSettings(f"sqlite:///{tmp_path}/back", retention_days=0)
    await copy_store(new, back)
    assert contents(back) == found
    # It works as a store there.
    assert await Store(new).memories() == await Store(old).memories()
    assert await Store(new).rows("toy") == await Store(old).rows("toy")
    assert await Reviews(new).queue() == await Reviews(old).queue()
    assert await Sends(new).unknown() == await Sends(old).unknown()
    assert await History(new).runs() == await History(old).runs()
    await History(new).record_run(RunRecord("score", "m", 1.0, 1.0, 1, 1, 1, 1, 1, None))


async def test_of_what_is_in_both_the_later_stays(url, tmp_path, clock):
    one, other = StoreSettings(url), StoreSettings(f"sqlite:///{tmp_path}/other")

    async def record(settings, value):
        cells = (ResponseDivergence(0, "n", value, value),)
        await Store(settings).record_score(MemoryScore("k", value, "incremental", cells), "m", 0.3)
        clock.now += 1

    await record(one, 1.0)
    await record(other, 2.0)
    await copy_store(one, other)
    await copy_store(other, one)
    for settings in (one, other):
        [memory] = await Store(settings).memories()
        assert memory.score == 2.0
        [batch] = [it async for it in Store(settings).evidence()]
        assert batch["signed"] == [2.0]


async def test_what_is_damaged_or_cannot_be_held_is_left_out_and_counted(tmp_path, postgres_url):
    source = StoreSettings(f"sqlite:///{tmp_path}/source")
    for key in ("fine", "nul\0", "odd"):
        cells = (ResponseDivergence(0, "n", 1.0, 1.0),)
        await Store(source).record_row(MemoryScore(key, 1.0, "full", cells), "m")
    with closing(sqlite3.connect(tmp_path / "source")) as connection:
        connection.execute("UPDATE cells SET signed = 'x' WHERE key = 'odd'")
        connection.commit()
    counts = {it.table: it for it in await copy_store(source, StoreSettings(postgres_url))}
    assert (counts["cells"].rows, counts["cells"].left_out) == (3, 2)
    [batch] = [it async for it in Store(StoreSettings(postgres_url)).evidence()]
    assert batch["key"] == ["fine"]


async def test_more_rows_than_one_batch_are_all_copied(tmp_path, url, monkeypatch):
    monkeypatch.setattr("mindscore.store.copying.BATCH_ROWS", 7)
    source = StoreSettings(f"sqlite:///{tmp_path}/source")
    cells = tuple(ResponseDivergence(it, f"n{it}", 1.0, 1.0) for it in range(50))
    await Store(source).record_row(MemoryScore("k", 1.0, "full", cells), "m")
    for number in range(20):
        run = RunRecord("score", "m", float(number), 1.0, 1, 1, None, 1, 1, None)
        await History(StoreSettings(source.url, retention_days=0)).record_run(run)
    await copy_store(source, StoreSettings(url))
    assert contents(StoreSettings(url)) == contents(source)


async def test_a_store_is_not_copied_to_itself(url):
    with pytest.raises(UsageError, match="both stores are the same"):
        await copy_store(StoreSettings(url), StoreSettings(url, "other"))
