"""A process that is killed while it hands over: no response twice, none marked but not written."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mindscore._util.errors import TrainError
from mindscore.store import Sends, Store
from mindscore.training.outbox import open_outbox

SEND = """
import asyncio, json, os, sys
from dataclasses import replace
from pathlib import Path

import msgspec
from mindhooks import TrainingSample
from mindscore.training.sinks import jsonl
from mindscore.training.outbox import Outbox, open_outbox

tables, stop = json.loads(sys.argv[1]), sys.argv[2]
samples = msgspec.json.decode(sys.stdin.buffer.readline(), type=list[TrainingSample])


def ready(*_, **__):
    print("here", flush=True)
    sys.stdin.readline()


# Where the process is killed: it waits there to be.
replaced = Path.replace
if stop == "before anything is written":
    jsonl.JsonlSink._write = ready
if stop == "with a file half made":
    os.fsync = ready
if stop == "between the two files":
    def replace_first(self, target):
        if target.suffix == ".jsonl":
            ready()
        return replaced(self, target)
    Path.replace = replace_first
if stop == "between the file and the mark":
    Outbox._marked = ready


async def main():
    async with open_outbox(tables) as hand_off:
        await hand_off.send(samples)

asyncio.run(main())
print("done", flush=True)
"""
STOPS = [
    "before anything is written",
    "with a file half made",
    "between the two files",
    "between the file and the mark",
    "never",
]


@pytest.fixture
def killed(tables):
    """Sends samples in a process of its own, which is killed at the place that a test names."""

    def run(stop, samples):
        import msgspec

        process = subprocess.Popen(
            [sys.executable, "-c", SEND, json.dumps(tables()), stop],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            process.stdin.write(msgspec.json.encode(samples) + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == (b"done\n" if stop == "never" else b"here\n")
        finally:
            process.kill()
            process.communicate()

    return run


@pytest.mark.parametrize("stop", STOPS)
async def test_a_response_is_written_once_and_marked_if_it_is_written(
    killed, stop, sample, tables, store_settings
):
    samples = [sample(timestamp_ns=1), sample(timestamp_ns=2)]
    await asyncio.to_thread(killed, stop, samples)
    store, sends, folder = Store(store_settings), Sends(store_settings), Path(tables_folder(tables))
    written = trained_on(folder)
    unknown = {(it.sink, it.responses) for it in await sends.unknown()}
    if stop == "never":
        assert (written, unknown) == ([1, 2], set())
        assert await store.trained_timestamps() == [1, 2]
        return
    # Killed: nothing is marked, and what may have been written is known to be unknown.
    assert await store.trained_timestamps() == []
    assert unknown == {("jsonl", 2)}
    assert written == ([1, 2] if stop == "between the file and the mark" else [])
    # Those are not sent as new ones; what is new is.
    async with open_outbox(tables()) as hand_off:
        await hand_off.send([*samples, sample(timestamp_ns=3)])
    assert trained_on(folder) == sorted([*written, 3])
    async with open_outbox(tables()) as hand_off:
        for send in await hand_off.unknown():
            await hand_off.resend(send)
        assert await hand_off.send(samples) is None
    assert trained_on(folder) == [1, 2, 3]
    assert await store.trained_timestamps() == [1, 2, 3]
    assert await sends.unknown() == []


async def test_a_file_that_cannot_be_written_leaves_no_mark(sample, tables, store_settings):
    folder = Path(tables_folder(tables))
    folder.write_text("no folder")
    with pytest.raises(TrainError, match="nothing was marked"):
        async with open_outbox(tables()) as hand_off:
            await hand_off.send([sample()])
    assert await Store(store_settings).trained_timestamps() == []
    folder.unlink()
    async with open_outbox(tables()) as hand_off:
        await hand_off.send([sample()])
    assert trained_on(folder) == [7]


def tables_folder(tables):
    return tables()["train"]["folder"]


def trained_on(folder):
    """The timestamps of all lines that a trainer would find in ``folder``, ascending."""
    found = []
    for file in folder.glob("*.jsonl"):
        provenance = file.with_name(f"{file.stem}.provenance.json")
        lines = json.loads(provenance.read_bytes())["lines"]
        assert len(file.read_bytes().splitlines()) == len(lines)
        found += [line["timestamp_ns"] for line in lines]
    return sorted(found)
