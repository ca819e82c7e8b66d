"""Nothing is lost: each attack at a smaller size, and each kind of fault by itself."""

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from mindhooks import MemoryScore, MindCommand, Registry, ResponseDivergence
from mindhooks.testing import StubMind
from mindscore._util.errors import StoreError, UsageError
from mindscore.config.settings import StoreSettings
from mindscore.scorers.selftest import tester as passed
from mindscore.store import Store
from mindscore.store.store import write_exchange

from .disks import NoDiskError, small_disk
from .keeping import ATTACKS, OLD_STORES, many_processes
from .victim import conversation

TRIALS = {
    "killed": 4,
    "full_disk": 2,
    "read_only": 2,
    "versions": 40,
    "training": 25,
    "imports": 1000,
}
TRIED = [attack for attack in ATTACKS if attack is not many_processes]


@pytest.mark.parametrize("attack", TRIED, ids=lambda attack: attack.__name__)
def test_the_promise_holds_under(attack):
    found = attack(TRIALS[attack.__name__])
    if not found.trials:
        pytest.skip(found.figure)
    assert found.failures == []


def test_the_promise_holds_under_many_processes():
    # Ten of them are in the tests of the store.
    assert many_processes(1, writes=40, processes=4).failures == []


# -- disks ----------------------------------------------------------------------------------------


@pytest.fixture
def disk():
    """A disk of 64 pages of 4 KiB."""
    try:
        with small_disk(64) as disk:
            yield disk
    except NoDiskError as why:
        pytest.skip(f"no disk to mount: {why}")


@pytest.fixture
def store(disk):
    """The store of the disk, not there yet."""
    return Store(StoreSettings(f"sqlite:///{disk.folder}/data/store"))


def score(key="k"):
    return MemoryScore(key, 1.0, "incremental", ())


def wide():
    """A row of the matrix that takes more than a few pages."""
    cells = tuple(ResponseDivergence(0, f"{it}" * 50, 1.0, 1.0) for it in range(500))
    return MemoryScore("wide", 1.0, "full", cells, None, "f")


async def test_a_store_on_a_full_disk_is_read_and_writing_says_why_it_fails(disk, store):
    await store.record_score(score(), "m", 0.5)
    before = (disk.folder / "data" / "store").read_bytes()
    disk.fill(0)
    with pytest.raises(StoreError, match=r"data/store: the disk is full"):
        await store.record_row(wide(), "m")
    assert [memory.key for memory in await store.memories()] == ["k"]
    assert await store.rows("m") == {}
    assert (disk.folder / "data" / "store").read_bytes() == before


async def test_once_there_is_room_again_the_store_works(disk, store):
    await store.record_score(score(), "m", 0.5)
    disk.fill(1)
    with pytest.raises(StoreError, match="the disk is full"):
        await store.record_row(wide(), "m")
    (disk.folder / "ballast").unlink()
    await store.record_score(score(), "m", 0.5)
    assert [memory.count for memory in await store.memories()] == [2]


async def test_a_store_cannot_begin_on_a_full_disk(disk, store):
    disk.fill(0)
    with pytest.raises(StoreError, match=r"data/store: "):
        await store.record_score(score(), "m", 0.5)
    assert await store.memories() == []


async def test_a_store_on_a_read_only_disk_is_read_and_writing_says_why_it_fails(disk, store):
    await store.record_score(score(), "m", 0.5)
    disk.lock()
    with pytest.raises(StoreError, match=r"data/store: it cannot be written: .* read-only"):
        await store.record_score(score(), "m", 0.5)
    assert [memory.count for memory in await store.memories()] == [1]


async def test_a_read_only_disk_without_a_store_reads_as_an_empty_store(disk, store):
    disk.lock()
    assert await store.memories() == []
    with pytest.raises(StoreError, match=r"data/store: Read-only file system"):
        await store.record_score(score(), "m", 0.5)


async def test_an_old_store_on_a_read_only_disk_cannot_be_migrated_and_is_left_alone(disk, store):
    file = disk.folder / "data" / "store"
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript((OLD_STORES / "version-1.sql").read_text(encoding="utf-8"))
    before = file.read_bytes()
    disk.lock()
    with pytest.raises(StoreError, match=r"data/store: it cannot be written"):
        await store.memories()
    assert file.read_bytes() == before


@pytest.mark.parametrize("command", [MindCommand.SCORE, MindCommand.SCORE_FULL])
async def test_a_run_whose_scores_cannot_be_kept_says_so_and_shows_them(disk, command, caplog):
    disk.lock()
    mind = StubMind(conversation())
    url = f"sqlite:///{disk.folder}/store"
    tables = {
        "server": {"scorer": "toy"},
        "memory": {"token_cutoff": 1.0},
        "store": {"url": url},
    }
    async with Registry(mind, tables) as registry:
        registry.load_entry_points()
        registry.dispatch(command)
        await registry.wait_idle()
    stats = mind.state.memory_last_run
    assert {outcome.status for outcome in stats.outcomes.values()} == {"scored"}
    assert stats.error.startswith(f"12 scores could not be kept: the store {disk.folder}/store: ")
    assert len(mind.state.memory_scores) == (12 if command == MindCommand.SCORE else 0)
    assert len([it for it in caplog.records if it.name == "mindhooks"]) == 1


def test_an_export_to_a_full_disk_leaves_the_file_that_was_there(disk):
    file = disk.folder / "scores.json"
    write_exchange(file, {"k": 1.0})
    before = file.read_bytes()
    disk.fill(1)
    with pytest.raises(UsageError, match=r"scores\.json: cannot be written: No space"):
        write_exchange(file, {f"key {it}": 1.0 for it in range(5000)})
    assert file.read_bytes() == before
    assert {it.name for it in disk.folder.iterdir()} == {"scores.json", "ballast"}


# -- whose files ----------------------------------------------------------------------------------

NOBODY = """
import asyncio, os, sys
from mindhooks import MemoryScore
from mindscore.config.settings import StoreSettings
from mindscore._util.errors import StoreError
from mindscore.store import Store

file, act, warm = sys.argv[1:]
acts = {
    "read": lambda store: store.memories(),
    "write": lambda store: store.record_score(MemoryScore("k", 1.0, "incremental", ()), "m", 0.5),
}

async def attempt(url):
    try:
        return await acts[act](Store(StoreSettings(url)))
    except StoreError as error:
        return error

# Everything is imported by now: nobody may not read where Python is.
asyncio.run(attempt(f"sqlite:///{warm}"))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
print(asyncio.run(attempt(f"sqlite:///{file}")))
"""


@pytest.fixture
def open_folder():
    """A folder that every user may go to."""
    folder = Path(tempfile.mkdtemp(prefix="mindscore-open-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def as_nobody(open_folder, tmp_path):
    """Reads or writes the store of ``open_folder`` as a user who owns nothing there."""

    def run(act):
        ran = subprocess.run(
            [sys.executable, "-c", NOBODY, open_folder / "store", act, tmp_path / "warm"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stderr == ""
        return ran.stdout.strip()

    return run


def keep(folder, mode):
    """A score in the store there; then the folder's mode and the file's are changed."""
    asyncio.run(Store(StoreSettings(f"sqlite:///{folder}/store")).record_score(score(), "m", 0.5))
    (folder / "store").chmod(mode)
    folder.chmod(0o555)


def test_what_may_be_read_only_is_read(as_nobody, open_folder):
    keep(open_folder, 0o444)
    assert "StoredMemory(key='k'" in as_nobody("read")


@pytest.mark.parametrize("mode", [0o444, 0o666])
def test_what_may_not_be_written_is_said_and_left_alone(as_nobody, open_folder, mode):
    keep(open_folder, mode)
    before = (open_folder / "store").read_bytes()
    said = as_nobody("write")
    assert said.startswith(f"the store {open_folder}/store: it cannot be ")
    assert "folder" in said
    assert (open_folder / "store").read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_what_may_not_be_read_is_said(as_nobody, open_folder):
    keep(open_folder, 0o600)
    assert as_nobody("read").startswith(f"the store {open_folder}/store: it cannot be opened")


def test_what_passed_the_self_test_is_its_owner_s_alone(tmp_path):
    before = os.umask(0)
    try:
        file = tmp_path / "a" / "b" / "self-tests.json"
        passed._remember(file, "server")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [stat.S_IMODE(it.stat().st_mode) for it in file.parents[:2]] == [0o700] * 2
    assert list(json.loads(file.read_bytes())) == ["server"]
    assert [it.name for it in file.parent.iterdir()] == [file.name]
