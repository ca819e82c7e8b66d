"""One store, several processes: agents of one user share a file."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from mindhooks import MemoryScore
from mindscore.config.settings import StoreSettings
from mindscore.store import Store, rows_of

PROCESSES, SCORES = 10, 20

RECORD = """
import asyncio, sys
from mindhooks import MemoryScore
from mindscore.config.settings import StoreSettings
from mindscore.store import Store

url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count // 2):
        store = Store(StoreSettings(url))
        await store.record_score(MemoryScore("shared", 2.0, "incremental", ()), "m", 0.3)
        await store.record_score(MemoryScore(name, float(number), "incremental", ()), "m", 1.0)

asyncio.run(main())
"""


def test_ten_processes_that_record_at_once_lose_no_score(url):
    with_pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RECORD, url, f"own-{number}", str(SCORES)],
            text=True,
            env=os.environ,
            **with_pipes,
        )
        for number in range(PROCESSES)
    ]
    try:
        for process in started:
            assert process.stdout.readline() == "ready\n"
        # All at once: the first of them makes the file and its tables.
        for process in started:
            process.stdin.write("go\n")
            process.stdin.flush()
        ends = [(*process.communicate(timeout=60), process.returncode) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert ends == [("", "", 0)] * PROCESSES

    memories = asyncio.run(Store(StoreSettings(url)).memories())
    found = {memory.key: memory for memory in memories}
    assert found["shared"].count == PROCESSES * SCORES // 2
    assert found["shared"].weight == pytest.approx(2.0, abs=1e-9)
    for number in range(PROCESSES):
        own = found.pop(f"own-{number}")
        assert (own.count, own.score, own.weight) == (SCORES // 2, SCORES // 2 - 1, SCORES // 2 - 1)
    assert found.keys() == {"shared"}


async def test_a_score_waits_for_another_process_that_is_writing(url, file):
    store = Store(StoreSettings(url))
    await store.import_trained([5])
    other = sqlite3.connect(file, isolation_level=None)
    with closing(other):
        other.execute("BEGIN IMMEDIATE")
        score = MemoryScore("k", 1.0, "incremental", ())
        recording = asyncio.create_task(store.record_score(score, "m", 0.3))
        done, _ = await asyncio.wait({recording}, timeout=0.2)
        assert done == set()
        other.execute("COMMIT")
        await recording
    assert [memory.key for memory in await store.memories()] == ["k"]


def test_processes_that_add_the_same_evidence_at_once_keep_each_row_once(url):
    code = """
import asyncio, sys
from mindscore.config.settings import StoreSettings
from mindscore.store import Evidence, Store

store = Store(StoreSettings(sys.argv[1]))
for batch in range(5):
    value, unknown = float(sys.argv[2]), (None, None, None, None)
    rows = [
        Evidence("c", "m", "k", "t", "full", f"{it}", it, value, 1.0, *unknown, value)
        for it in range(200 * batch, 200 * batch + 200)
    ]
    asyncio.run(store.add_evidence(rows))
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code, url, str(number)]) for number in range(4)
    ]
    assert [process.wait(120) for process in started] == [0] * 4

    async def kept():
        return [
            row async for batch in Store(StoreSettings(url)).evidence() for row in rows_of(batch)
        ]

    found = asyncio.run(kept())
    assert len(found) == 1000
    # The one that was scored last, whoever came last.
    assert {(it.divergence, it.scored_at) for it in found} == {(3.0, 3.0)}


async def test_many_scores_of_one_process_at_once_are_all_kept(url):
    score = MemoryScore("k", 1.0, "incremental", ())
    stores = [Store(StoreSettings(url)) for _ in range(20)]
    await asyncio.gather(*(store.record_score(score, "m", 0.3) for store in stores))
    [memory] = await stores[0].memories()
    assert memory.count == 20
