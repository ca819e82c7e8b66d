"""The store: every method, its files, and what it refuses."""

import asyncio
import math
import os
import random
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path

import pytest

from mindhooks import FinetuneCandidate, MemoryScore, ResponseDivergence
from mindscore._util.errors import ConfigError, StoreError
from mindscore.config.settings import StoreSettings, parse_settings
from mindscore.measure.prompts import response_hash
from mindscore.store import History, Records, Reviews, Store, as_arrays, database
from mindscore.store.database import Database
from mindscore.store.schema import STORE


def score(key, value):
    return MemoryScore(key, value, "incremental", ())


def row(key, *node_ids, fingerprint=None):
    cells = tuple(ResponseDivergence(0, node_id, 1.0, 1.0) for node_id in node_ids)
    return MemoryScore(key, 1.0, "full", cells, fingerprint=fingerprint)


def candidate(timestamp_ns=5, continuation_ids=(3,)):
    return FinetuneCandidate(
        0, "n", 1.0, "said", "", (1,), (1,), continuation_ids, None, None, timestamp_ns
    )


READS = [
    lambda store: store.last_scored("m"),
    lambda store: store.memories(),
    lambda store: store.rows("m"),
    lambda store: store.trained_timestamps(),
]
WRITES = [
    lambda store: store.record_score(score("k", 1.0), "m", 0.5),
    lambda store: store.record_row(row("k", "n", fingerprint="f"), "m"),
    lambda store: store.record_candidate(candidate(), "m"),
    lambda store: store.mark_trained([(5, (3,))], "job"),
    lambda store: store.import_trained([5]),
    lambda store: store.import_scores({"k": 1.0}, "m"),
    lambda store: store.forget("k"),
]
EVERY_METHOD = [*READS, lambda store: store.trained(), *WRITES]


def read_file(file, query):
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


# -- memories -------------------------------------------------------------------------------------


async def test_a_fresh_store_is_empty(store):
    assert await store().memories() == []
    assert await store().last_scored("m") == {}
    assert await store().trained_timestamps() == []
    assert not (await store().trained()).covers(5, [3])


async def test_a_recorded_score_is_there_for_whoever_opens_the_store_next(store, clock):
    await store().record_score(score("k", 2.0), "m", 0.5)
    [memory] = await store().memories()
    assert (memory.key, memory.model, memory.score, memory.weight) == ("k", "m", 2.0, 2.0)
    assert (memory.last_scored, memory.count) == (clock.now, 1)


async def test_memories_are_listed_by_weight_and_then_by_key(store):
    for key, value in (("a", 1.0), ("c", 3.0), ("d", 2.0), ("b", 3.0)):
        await store().record_score(score(key, value), "m", 0.5)
    assert [memory.key for memory in await store().memories()] == ["b", "c", "d", "a"]


async def test_last_scored_is_by_key_for_one_model(store, clock):
    await store().record_score(score("a", 1.0), "m", 0.5)
    clock.now += 1
    await store().record_score(score("b", 1.0), "m", 0.5)
    await store().record_score(score("c", 1.0), "other", 0.5)
    assert await store().last_scored("m") == {"a": clock.now - 1, "b": clock.now}
    assert await store().last_scored("other") == {"c": clock.now}


async def test_two_models_do_not_mix(store):
    await store().record_score(score("k", 1.0), "m", 0.5)
    await store().record_score(score("k", 9.0), "other", 0.5)
    await store().record_score(score("k", 3.0), "m", 0.5)
    found = {memory.model: (memory.weight, memory.count) for memory in await store().memories()}
    assert found == {"m": (2.0, 2), "other": (9.0, 1)}


async def test_two_namespaces_do_not_mix(store):
    await store("a").record_score(score("k", 1.0), "m", 0.5)
    await store("a").record_row(row("k", "n"), "m")
    await store("a").mark_trained([(5, (3,))], "job")
    await store("b").record_score(score("k", 9.0), "m", 0.5)
    await store("b").import_scores({"only-b": 2.0}, "m")
    await store("b").import_trained([6])
    assert [(it.key, it.weight) for it in await store("a").memories()] == [("k", 1.0)]
    assert [(it.key, it.weight) for it in await store("b").memories()] == [
        ("k", 9.0),
        ("only-b", 2.0),
    ]
    assert await store("a").trained_timestamps() == [5]
    assert await store("b").trained_timestamps() == [6]
    assert await store("b").forget("k") == 1
    assert [it.key for it in await store("a").memories()] == ["k"]


async def test_imported_scores_are_score_and_weight_of_memories_never_measured(store):
    await store().import_scores({"k": 2.0}, "m")
    [memory] = await store().memories()
    assert (memory.key, memory.model, memory.score, memory.weight) == ("k", "m", 2.0, 2.0)
    assert (memory.last_scored, memory.count) == (None, 0)
    assert await store().last_scored("m") == {}


async def test_an_import_over_a_measured_memory_leaves_when_and_how_often(store, clock):
    await store().record_score(score("k", 1.0), "m", 0.5)
    await store().import_scores({"k": 5.0}, "m")
    [memory] = await store().memories()
    assert (memory.score, memory.weight) == (5.0, 5.0)
    assert (memory.last_scored, memory.count) == (clock.now, 1)


async def test_importing_nothing_is_fine(store):
    await store().import_scores({}, "m")
    await store().import_trained([])
    await store().mark_trained([], "job")
    assert await store().memories() == []
    assert await store().trained_timestamps() == []


async def test_forgetting_removes_scores_and_cells_of_every_model_and_says_how_many(store, read):
    for model in ("m", "other"):
        await store().record_score(score("k", 1.0), model, 0.5)
        await store().record_score(score("stays", 1.0), model, 0.5)
        await store().record_row(row("k", "n1", "n2"), model)
        await store().record_row(row("stays", "n1"), model)
    assert await store().forget("k") == 2 + 4
    assert {memory.key for memory in await store().memories()} == {"stays"}
    assert set(read("SELECT key FROM cells")) == {("stays",)}
    assert await store().forget("k") == 0


# -- cells and candidates -------------------------------------------------------------------------


async def test_a_row_s_cells_are_replaced_by_the_next_row_s(store, read):
    first = MemoryScore("k", 2.0, "full", (ResponseDivergence(3, "n", 2.0, 2.0),))
    second = MemoryScore("k", 0.0, "full", (ResponseDivergence(4, "n", 0.0, -1.0),))
    await store().record_row(first, "m")
    await store().record_row(second, "m")
    found = read("SELECT node_id, entry_idx, divergence, signed FROM cells")
    assert found == [("n", 4, 0.0, -1.0)]


async def test_candidates_are_told_apart_by_model_timestamp_and_ids(store, read):
    await store().record_candidate(candidate(), "m")
    await store().record_candidate(candidate(), "m")
    await store().record_candidate(candidate(), "other")
    await store().record_candidate(candidate(timestamp_ns=6), "m")
    await store().record_candidate(candidate(continuation_ids=(4,)), "m")
    found = read("SELECT model, timestamp_ns, continuation_hash FROM candidates")
    assert sorted(found) == sorted(
        [
            ("m", 5, response_hash([3])),
            ("other", 5, response_hash([3])),
            ("m", 6, response_hash([3])),
            ("m", 5, response_hash([4])),
        ]
    )


# -- rows, whole ----------------------------------------------------------------------------------

WHOLE = MemoryScore(
    "k",
    2.5,
    "full",
    (ResponseDivergence(1, "c1", 2.5, 2.5, 0.125), ResponseDivergence(3, "c3", 0.0, -1e-17)),
    (ResponseDivergence(1, "c1", 0.1 + 0.2, 0.1 + 0.2, None),),
    "f" * 64,
)


async def test_a_row_with_a_fingerprint_is_kept_whole(store):
    await store().record_row(WHOLE, "m")
    assert await store().rows("m") == {"k": WHOLE}
    assert await store().rows("other") == {}
    assert await store("other").rows("m") == {}


async def test_a_row_that_json_cannot_hold_is_as_good_as_not_kept(store):
    infinite = MemoryScore(
        "k", 1.0, "full", (ResponseDivergence(0, "n", 0.0, -math.inf),), None, "f"
    )
    await store().record_row(infinite, "m")
    await store().record_row(row("fine", "n", fingerprint="f"), "m")
    assert list(await store().rows("m")) == ["fine"]


async def test_the_next_row_of_a_memory_replaces_it(store):
    await store().record_row(WHOLE, "m")
    await store().record_row(row("k", "n", fingerprint="g"), "m")
    assert await store().rows("m") == {"k": row("k", "n", fingerprint="g")}


async def test_a_row_without_a_fingerprint_is_not_kept_whole(store, read):
    await store().record_row(row("k", "n"), "m")
    assert await store().rows("m") == {}
    assert read("SELECT key FROM cells") == [("k",)]


async def test_a_forgotten_memory_s_row_goes_too(store):
    await store().record_row(row("k", "n", fingerprint="f"), "m")
    await store().record_row(row("stays", "n", fingerprint="f"), "m")
    assert await store().forget("k") == 1 + 1
    assert list(await store().rows("m")) == ["stays"]


async def test_a_row_that_cannot_be_kept_leaves_no_cells(store, read):
    await store().record_score(score("k", 1.0), "m", 0.5)
    broken = MemoryScore("k", 1.0, "full", row("k", "n").divergences, None, "\ud800")
    with pytest.raises(StoreError, match="cannot hold"):
        await store().record_row(broken, "m")
    assert read("SELECT * FROM cells") == []


# -- for how long ---------------------------------------------------------------------------------


async def test_what_is_older_than_the_retention_goes_when_something_is_written(store, clock):
    await store().record_row(row("old", "n", fingerprint="f"), "m")
    await store().record_candidate(candidate(timestamp_ns=1), "m")
    clock.now += 2 * 24 * 3600
    await store(days=2).record_row(row("new", "n", fingerprint="f"), "m")
    assert set(await store().rows("m")) == {"old", "new"}
    clock.now += 1
    await store(days=2).record_row(row("newer", "n", fingerprint="f"), "m")
    await store(days=2).record_candidate(candidate(timestamp_ns=2), "m")
    assert set(await store().rows("m")) == {"new", "newer"}


async def test_scores_of_conversations_go_by_the_same_clock(store, clock):
    async def record(key, days):
        await store(days=days).record_score(score(key, 1.0), "m", 0.5, conversation="c")
        return {it.key for it in await store().known_scores("m", "c")}

    assert await record("old", 2) == {"old"}
    clock.now += 2 * 24 * 3600 + 1
    assert await record("new", 0) == {"old", "new"}
    assert await record("newer", 2) == {"new", "newer"}
    # What the clock says after a long time without a write is not believed at once.
    clock.now += 400 * 24 * 3600
    assert await record("jump", 2) == {"new", "newer", "jump"}
    # The weights have a longer memory.
    assert {it.key for it in await store().memories("m")} == {"old", "new", "newer", "jump"}


async def test_old_cells_and_candidates_go_from_their_own_namespace_only(store, read, clock):
    for namespace in ("mine", "other"):
        await store(namespace).record_row(row("old", "n"), "m")
        await store(namespace).record_candidate(candidate(timestamp_ns=1), "m")
    clock.now += 10
    await store("mine", days=1e-6).record_row(row("new", "n"), "m")
    await store("mine", days=1e-6).record_candidate(candidate(timestamp_ns=2), "m")
    found = [("mine", "new"), ("other", "old")]
    assert read("SELECT namespace, key FROM cells ORDER BY 1, 2") == found
    found = [("mine", 2), ("other", 1)]
    assert read("SELECT namespace, timestamp_ns FROM candidates ORDER BY 1, 2") == found


async def test_memories_and_marks_are_kept_for_ever(store, clock):
    await store().record_score(score("k", 1.0), "m", 0.5)
    await store().mark_trained([(5, (3,))], "job")
    clock.now += 1e9
    await store(days=1e-6).record_row(row("new", "n"), "m")
    await store(days=1e-6).record_candidate(candidate(), "m")
    assert [memory.key for memory in await store().memories()] == ["k"]
    assert await store().trained_timestamps() == [5]


async def test_a_retention_of_0_days_is_for_ever(store, clock):
    await store(days=0).record_row(row("old", "n", fingerprint="f"), "m")
    clock.now += 1e9
    await store(days=0).record_row(row("new", "n", fingerprint="f"), "m")
    assert set(await store().rows("m")) == {"old", "new"}


async def test_a_store_of_ever_new_responses_stops_growing(store, file, clock, read):
    sizes = []
    for run in range(40):
        for key in range(10):
            cells = row(f"{key}", *(f"{run}-{key}-{node}" for node in range(20)), fingerprint="f")
            await store(days=1).record_row(cells, "m")
        clock.now += 6 * 3600
        sizes.append(file.stat().st_size)
    assert max(sizes[20:]) <= max(sizes[:20])
    assert len(read("SELECT * FROM cells")) <= 5 * 10 * 20


def test_removing_what_is_old_reads_nothing_else(file, store):
    # By an index: the cost is that of the rows removed.
    asyncio.run(store().import_trained([5]))
    for table, when in (("cells", "scored_at"), ("rows", "scored_at"), ("candidates", "found_at")):
        query = f'EXPLAIN QUERY PLAN DELETE FROM "{table}" WHERE namespace = 1 AND {when} < 1'
        [(*_, plan)] = read_file(file, query)
        assert f"{table}_by_age" in plan


# -- trained --------------------------------------------------------------------------------------


async def test_a_mark_covers_the_timestamp_with_these_ids_only(store):
    await store().mark_trained([(5, (3, 4))], "job")
    marks = await store().trained()
    assert marks.covers(5, (3, 4))
    assert not marks.covers(5, (3,))
    assert not marks.covers(6, (3, 4))


async def test_an_imported_mark_covers_its_timestamp_whatever_the_ids(store):
    await store().import_trained([5])
    marks = await store().trained()
    assert marks.covers(5, (3, 4))
    assert marks.covers(5, ())
    assert not marks.covers(6, (3, 4))


async def test_a_mark_may_be_written_twice_and_keeps_the_last_job(store, read):
    await store().mark_trained([(5, (3,))], "first")
    await store().mark_trained([(5, (3,)), (5, (4,))], "second")
    assert set(read("SELECT job_id FROM trained")) == {("second",)}
    assert len(read("SELECT * FROM trained")) == 2


async def test_timestamps_are_listed_ascending_each_once(store):
    await store().mark_trained([(7, (1,)), (7, (2,)), (-3, (1,))], "job")
    await store().import_trained([5, 7, -(2**63), 2**63 - 1])
    assert await store().trained_timestamps() == [-(2**63), -3, 5, 7, 2**63 - 1]


@pytest.mark.parametrize(
    ("one", "other"), [((1, 2), (2, 1)), ((1,), (1, 1)), ((), (0,)), ((1, 2), (12,))]
)
def test_different_ids_have_different_hashes(one, other):
    assert response_hash(one) == response_hash(list(one))
    assert response_hash(one) != response_hash(other)


# -- files ----------------------------------------------------------------------------------------


@pytest.fixture
def no_umask():
    """Whatever a file's mode is, it is the store's doing."""
    before = os.umask(0)
    yield
    os.umask(before)


async def test_the_store_s_file_and_folder_are_for_their_owner_alone(store, file, no_umask):
    await store().record_score(score("k", 1.0), "m", 0.5)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_an_empty_url_is_a_file_in_the_user_s_data_folder(tmp_path, no_umask):
    await Store(StoreSettings()).record_score(score("k", 1.0), "m", 0.5)
    file = tmp_path / "data" / "mindscore" / "store.sqlite3"
    assert read_file(file, "SELECT key FROM memories") == [("k",)]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_three_slashes_are_a_file_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    await Store(StoreSettings("sqlite:///here.sqlite3")).import_trained([5])
    assert (tmp_path / "here.sqlite3").is_file()


async def test_a_folder_that_is_there_keeps_its_mode(store, file, no_umask):
    file.parent.mkdir(mode=0o755)
    await store().import_trained([5])
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o755


async def test_a_file_that_is_there_keeps_its_mode(store, file, no_umask):
    file.parent.mkdir()
    file.touch(mode=0o644)
    await store().import_trained([5])
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


async def test_every_folder_that_is_made_on_the_way_is_for_its_owner_alone(tmp_path, no_umask):
    file = tmp_path / "a" / "b" / "c" / "store.sqlite3"
    await Store(StoreSettings(f"sqlite:///{file}")).import_trained([5])
    modes = [stat.S_IMODE(it.stat().st_mode) for it in file.parents[:3]]
    assert modes == [0o700] * 3


async def test_the_journal_is_for_its_owner_alone(store, file, no_umask):
    await store().import_trained([5])
    modes = []

    def work(connection):
        connection.exec_driver_sql("DELETE FROM trained")
        journal = file.with_name(f"{file.name}-journal")
        modes.append(stat.S_IMODE(journal.stat().st_mode))

    await Database(file).write(work)
    assert modes == [0o600]


async def test_a_file_whose_name_has_marks_of_a_url_is_that_file(tmp_path):
    file = tmp_path / "a b" / "50%?mode=memory#x"
    await Store(StoreSettings(f"sqlite:///{file}")).import_trained([5])
    assert read_file(file, "SELECT timestamp_ns FROM trained") == [(5,)]


async def test_a_link_to_where_nothing_is_yet_is_a_store(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "store.sqlite3")
    store = Store(StoreSettings(f"sqlite:///{link}"))
    assert await store.trained_timestamps() == []
    await store.import_trained([5])
    assert await store.trained_timestamps() == [5]
    assert link.is_symlink()


@pytest.mark.parametrize("read", READS)
async def test_reading_makes_no_store(store, file, read):
    assert not await read(store())
    assert not file.parent.exists()


@pytest.mark.parametrize("read", READS)
async def test_a_file_that_is_empty_still_reads_as_an_empty_store(store, file, read):
    # As one is whose maker was killed before the first score.
    file.parent.mkdir()
    file.touch()
    assert not await read(store())
    assert file.read_bytes() == b""


async def test_a_file_that_is_empty_still_becomes_a_store(store, file):
    file.parent.mkdir()
    file.touch()
    await store().record_score(score("k", 1.0), "m", 0.5)
    assert [memory.key for memory in await store().memories()] == ["k"]


# -- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize("call", EVERY_METHOD)
async def test_a_store_of_a_newer_version_is_refused_and_left_alone(store, file, call):
    await store().record_score(score("k", 1.0), "m", 0.5)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = file.read_bytes()
    with pytest.raises(StoreError, match="schema version 99") as caught:
        await call(store())
    assert str(file) in str(caught.value)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("call", EVERY_METHOD)
async def test_a_file_that_is_no_database_is_a_store_error_and_left_alone(store, file, call):
    file.parent.mkdir()
    file.write_text("this is a letter, not a database. " * 100)
    before = file.read_bytes()
    with pytest.raises(StoreError, match="not a database") as caught:
        await call(store())
    assert str(file) in str(caught.value)
    assert file.read_bytes() == before


async def test_a_damaged_database_is_a_store_error(store, file):
    await store().record_score(score("k", 1.0), "m", 0.5)
    raw = bytearray(file.read_bytes())
    raw[100:] = b"\xff" * (len(raw) - 100)
    file.write_bytes(raw)
    with pytest.raises(StoreError, match=r"store\.sqlite3"):
        await store().memories()


@pytest.mark.parametrize("call", [Store.memories, lambda it: it.import_trained([1])])
async def test_a_store_whose_name_is_a_link_to_itself_names_the_file_and_the_key(call, tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(StoreError) as caught:
        await call(Store(StoreSettings(f"sqlite:///{loop}")))
    assert str(loop) in str(caught.value)
    assert "store.url" in str(caught.value)


@pytest.mark.parametrize("call", [Store.memories, lambda it: it.import_trained([1])])
async def test_a_folder_in_the_place_of_a_store_names_the_file_and_the_key(call, tmp_path):
    with pytest.raises(StoreError, match=rf"{tmp_path}: .*store\.url"):
        await call(Store(StoreSettings(f"sqlite:///{tmp_path}")))


async def test_a_store_may_have_a_name_that_is_not_utf8(tmp_path):
    file = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.sqlite3")
    store = Store(StoreSettings(f"sqlite:///{file}"))
    await store.record_score(score("k", 1.0), "m", 0.5)
    assert [it.key for it in await store.memories()] == ["k"]
    assert Path(file).exists()


async def test_a_store_below_a_file_is_a_store_error(tmp_path):
    (tmp_path / "file").touch()
    store = Store(StoreSettings(f"sqlite:///{tmp_path}/file/store.sqlite3"))
    with pytest.raises(StoreError, match=r"file/store\.sqlite3"):
        await store.memories()


async def test_a_store_that_is_a_folder_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match=tmp_path.name):
        await Store(StoreSettings(f"sqlite:///{tmp_path}")).memories()


@pytest.mark.parametrize("call", EVERY_METHOD)
@pytest.mark.parametrize("version", [0, 1, STORE.version])
async def test_a_database_of_something_else_is_a_store_error_and_left_alone(
    store, file, call, version
):
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
        connection.execute(f"PRAGMA user_version = {version}")
    before = file.read_bytes()
    with pytest.raises(StoreError, match="something else") as caught:
        await call(store())
    assert str(file) in str(caught.value)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("call", EVERY_METHOD)
@pytest.mark.parametrize("missing", [1, 511, 4095, 4096, 5000, 20_000])
async def test_a_truncated_database_is_a_store_error_and_left_alone(store, file, call, missing):
    await store().record_score(score("k", 1.0), "m", 0.5)
    os.truncate(file, file.stat().st_size - missing)
    before = file.read_bytes()
    with pytest.raises(StoreError, match=r"store\.sqlite3.*damaged"):
        await call(store())
    assert file.read_bytes() == before


@pytest.mark.parametrize("call", EVERY_METHOD)
@pytest.mark.parametrize("contents", [b"S", b"SQLite format 3\0", bytes(100), bytes(8192)])
async def test_what_only_begins_as_a_database_is_a_store_error_and_left_alone(
    store, file, call, contents
):
    file.parent.mkdir()
    file.write_bytes(contents)
    with pytest.raises(StoreError, match=r"store\.sqlite3"):
        await call(store())
    assert file.read_bytes() == contents


async def test_a_pipe_is_a_store_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="pipe"):
        await Store(StoreSettings(f"sqlite:///{tmp_path}/pipe")).memories()


async def test_a_value_that_no_database_holds_is_a_store_error(store):
    with pytest.raises(StoreError, match="cannot hold"):
        await store().record_score(score("\ud800", 1.0), "m", 0.5)


async def test_a_store_that_stays_locked_is_a_store_error_that_says_so(store, file, monkeypatch):
    await store().record_score(score("k", 1.0), "m", 0.5)
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for call in EVERY_METHOD:
            with pytest.raises(StoreError, match=r"store\.sqlite3.*locked"):
                await call(store())
        other.execute("ROLLBACK")
    assert [memory.count for memory in await store().memories()] == [1]


async def test_a_write_waits_for_somebody_who_reads(store, file):
    await store().record_score(score("k", 1.0), "m", 0.5)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM memories").fetchall()
        recording = asyncio.create_task(store().record_score(score("k", 1.0), "m", 0.5))
        done, _ = await asyncio.wait({recording}, timeout=0.2)
        assert done == set()
        other.execute("ROLLBACK")
        await recording
    assert [memory.count for memory in await store().memories()] == [2]


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "postgresql://localhost/db",
        "mysql:///file",
        "sqlite://",
        "sqlite:///",
        "/var/lib/store.sqlite3",
        "sqlite+pysqlite:///file",
        "sqlite:///:memory:",
    ],
)
def test_another_url_is_a_configuration_error_that_says_what_was_expected(url):
    with pytest.raises(ConfigError, match=r"^store\.url: expected .*sqlite:///FILE") as caught:
        parse_settings({"store": {"url": url}})
    assert repr(url) in str(caught.value)


# -- transactions ---------------------------------------------------------------------------------


async def test_a_transaction_that_fails_leaves_nothing(store, file):
    await store().record_score(score("k", 1.0), "m", 0.5)

    def work(connection):
        connection.exec_driver_sql("DELETE FROM memories")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Database(file).write(work)
    assert [memory.key for memory in await store().memories()] == ["k"]


async def test_a_batch_of_marks_is_written_whole_or_not_at_all(store):
    # The second timestamp fits no 64-bit integer.
    with pytest.raises(StoreError, match="cannot hold"):
        await store().import_trained([5, 2**63])
    assert await store().trained_timestamps() == []


async def test_many_scores_leave_nothing_open(store):
    async def record(count):
        for number in range(count):
            await store().record_score(score(f"k{number % 10}", 1.0), "m", 0.5)

    await record(20)
    before = len(list(Path("/dev/fd").iterdir()))
    await record(200)
    assert len(list(Path("/dev/fd").iterdir())) == before


async def test_what_each_token_adds_is_not_kept(store):
    cell = ResponseDivergence(0, "n", 1.0, 1.0, None, (0.25, 0.75))
    whole = MemoryScore("tea", 1.0, "full", (cell,), hold=(cell,), fingerprint="f")
    await store().record_row(whole, "m")
    kept = (await store().rows("m"))["tea"]
    assert [it.tokens for it in (*kept.divergences, *kept.hold)] == [None, None]
    assert [it.signed for it in (*kept.divergences, *kept.hold)] == [1.0, 1.0]


# -- conversations, texts, and clocks --------------------------------------------------------------


async def test_a_weight_is_of_one_text_and_a_time_of_one_conversation(store, clock):
    async def record(value, conversation, text_hash, run):
        of = {"conversation": conversation, "text_hash": text_hash, "run": run}
        await store().record_score(score("k", value), "m", 0.5, **of)

    await record(4.0, "one", "t1", "r1")
    assert await store().last_scored("m", "one", {"k": "t1"}) == {"k": clock.now}
    assert await store().last_scored("m", "two", {"k": "t1"}) == {}
    assert await store().last_scored("m", "one", {"k": "t2"}) == {}
    clock.now += 1
    await record(8.0, "two", "t1", "r2")
    [memory] = await store().memories()
    assert (memory.weight, memory.count, memory.text_hash) == (6.0, 2, "t1")
    clock.now += 1
    await record(1.0, "one", "t2", "r3")
    [memory] = await store().memories()
    assert (memory.weight, memory.count, memory.text_hash) == (1.0, 1, "t2")
    latest = await store().latest_scores("m", "two")
    assert [(it.score, it.text_hash) for it in latest.values()] == [(8.0, "t1")]
    for text, scores in {"t1": [8.0], "t2": [], "": []}.items():
        of = await store().latest_scores("m", "two", {"k": text})
        assert [it.score for it in of.values()] == scores


async def test_a_score_that_its_run_tells_twice_counts_once(store):
    for _ in range(2):
        await store().record_score(score("k", 4.0), "m", 0.5, text_hash="t", run="r")
    [memory] = await store().memories()
    assert memory.count == 1


async def test_memories_are_listed_by_page_and_found_by_key(store):
    for number in range(5):
        await store().record_score(score(f"k{number}", float(number)), "m", 0.5)
    found = await store().memories("m", limit=2, offset=1)
    assert [it.key for it in found] == ["k3", "k2"]
    assert await store().count_memories("m") == 5
    assert [it.key for it in await store().memories(search="K1", order="key")] == ["k1"]
    assert await store().count_memories("other") == 0


async def test_a_clock_that_is_a_year_ahead_removes_nothing(store, clock):
    for stamp in range(3):
        await store(days=90).record_candidate(candidate(timestamp_ns=stamp), "m")
    clock.now += 365 * 86_400
    for stamp in range(3, 6):
        await store(days=90).record_candidate(candidate(timestamp_ns=stamp), "m")
    clock.now -= 365 * 86_400
    await store(days=90).record_candidate(candidate(timestamp_ns=6), "m")
    settings = store()._database
    rows = await settings.read(lambda it: it.exec_driver_sql("SELECT * FROM candidates").all())
    assert len(rows) == 7


async def test_days_of_writing_show_that_a_clock_is_right(store, read, clock):
    await store(days=90).record_candidate(candidate(timestamp_ns=1), "m")
    clock.now += 365 * 86_400
    for stamp in range(2, 7):
        await store(days=90).record_candidate(candidate(timestamp_ns=stamp), "m")
        clock.now += 86_400
    assert (1,) not in read("SELECT timestamp_ns FROM candidates")


# -- damage ---------------------------------------------------------------------------------------


async def test_a_damaged_record_is_named_and_left_out_and_can_be_removed(store, file, caplog):
    url = f"sqlite:///{file}"
    for stamp in (1, 2):
        await store().record_candidate(candidate(timestamp_ns=stamp), "m")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(
            "UPDATE candidates SET candidate = '#' || candidate WHERE timestamp_ns = 1"
        )
        connection.commit()
    assert [it.name.timestamp_ns for it in await Reviews(StoreSettings(url)).queue()] == [2]
    assert "candidates:1 is damaged" in caplog.text
    records = Records(StoreSettings(url))
    assert [it.id for it in await records.damaged()] == ["candidates:1"]
    with pytest.raises(StoreError, match="candidates:2 is no damaged record"):
        await records.drop(["candidates:1", "candidates:2"])
    assert await records.drop(["candidates:1"]) == 1
    assert await records.damaged() == []


@pytest.mark.parametrize("ids", [(2**31,), (-1,), (10**30,), ()])
async def test_a_candidate_of_ids_that_no_model_has_is_not_kept(store, file, ids):
    with pytest.raises(StoreError, match="cannot be kept"):
        await store().record_candidate(candidate(continuation_ids=ids), "m")


def test_whatever_bytes_are_flipped_only_store_errors_come(store, file, tmp_path):
    async def fill():
        await store().record_score(score("k", 1.0), "m", 0.5, text_hash="t")
        await store().record_row(row("k", "n", fingerprint="f"), "m")
        await store().record_candidate(candidate(), "m")

    asyncio.run(fill())
    whole, chance = file.read_bytes(), random.Random(18)
    for number in range(60):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3, 30))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        other = tmp_path / f"damaged-{number}"
        other.write_bytes(damaged)
        for act in acts_on(StoreSettings(f"sqlite:///{other}")):
            with suppress(StoreError):
                asyncio.run(act())


def acts_on(settings):
    return (
        lambda: Store(settings).memories(),
        lambda: Store(settings).last_scored("m", "", {"k": "t"}),
        lambda: Store(settings).rows("m"),
        lambda: Store(settings).trained(),
        lambda: History(settings).cells("m", 100),
        lambda: as_arrays(Store(settings).evidence()),
        lambda: Store(settings).memory_texts(),
        lambda: History(settings).points("m", ["k"], 9),
        lambda: History(settings).runs(),
        lambda: History(settings).models(),
        lambda: Reviews(settings).queue(),
        lambda: Reviews(settings).listed("m"),
        lambda: Records(settings).damaged(),
        lambda: Store(settings).record_score(score("k", 2.0), "m", 0.5, text_hash="t"),
    )
