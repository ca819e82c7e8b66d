"""A pass with Ray itself: workers and command killed, and the same evidence all the same."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.bench.ray_engine import SlowScoreServer, write_talks

from mindscore.readers.conversations import Conversations

from .kept import kept

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FIXTURES = Path(__file__).parent.parent / "readers" / "fixtures"

TALKS = 24
CALLS = 9
"""Calls for each conversation: the baseline, and one without each memory."""

TOKENS = 368
"""Tokens of each conversation."""


def store_of(tmp_path, engine):
    return f"sqlite:///{tmp_path}/{engine}.sqlite3"


@pytest.fixture
def command(tmp_path):
    """Return the process of a pass over an archive."""
    folder = tmp_path / "talks"
    folder.mkdir()
    write_talks(folder, TALKS)

    def start(engine, *servers, options=()):
        urls = ", ".join(f"'{it.url}'" for it in servers)
        settings = (
            *("server.scorer=score", f"server.base_urls=[{urls}]", "server.concurrency=1"),
            *("server.max_attempts=1", "memory.noise_repeats=0", "ray.workers=2"),
            *(f"store.url={store_of(tmp_path, engine)}", "store.retention_days=0"),
        )
        options = [*options, *(it for setting in settings for it in ("--set", setting))]
        arguments = ("score", folder, "--full", "--no-self-test", "--engine", engine)
        return subprocess.Popen(
            [sys.executable, "-m", "mindscore", *arguments, *options],
            env={**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture
def expected(tmp_path, command):
    """Return what the same pass keeps without Ray."""
    with SlowScoreServer(0) as server:
        ended(command("asyncio", server))
    return kept(tables(tmp_path, "asyncio"))


def tables(tmp_path, engine):
    return {"store": {"url": store_of(tmp_path, engine), "retention_days": 0}}


def ended(process):
    """Return the output of a command that succeeds."""
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    return output


def descendants(pid):
    """Return the ids of a process's children, and of theirs."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(file.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found += [int(file.parent.name), *descendants(int(file.parent.name))]
    return found


def workers(pid):
    lines = ((it, Path(f"/proc/{it}/cmdline")) for it in descendants(pid))
    return [
        it for it, file in lines if file.exists() and b"ConversationWorker" in file.read_bytes()
    ]


def wait_until(holds, seconds=200):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_worker_that_is_killed_changes_nothing(tmp_path, command, expected):
    with SlowScoreServer() as server:
        process = command("ray", server)
        wait_until(lambda: len(server.at) > 3 * CALLS)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        output = ended(process)

    assert kept(tables(tmp_path, "ray")) == expected
    assert len(server.at) >= TALKS * CALLS
    assert "Traceback" not in output


def test_a_command_that_is_killed_goes_on(tmp_path, command, expected):
    with SlowScoreServer() as server:
        process = command("ray", server)
        wait_until(lambda: len(server.at) > TALKS * CALLS // 2)
        others = descendants(process.pid)
        process.kill()
        process.communicate()
        wait_until(lambda: not any(Path(f"/proc/{it}").exists() for it in others))
        before = len(server.at)

        ended(command("ray", server))

    assert kept(tables(tmp_path, "ray")) == expected
    # Two conversations were under way, and as many may not have been written yet.
    assert len(server.at) - before <= TALKS * CALLS - (before // CALLS - 4) * CALLS
    assert len(server.at) - before < TALKS * CALLS


def test_a_budget_and_a_server_that_goes_down_change_nothing(tmp_path, command, expected):
    limit = TALKS * CALLS * TOKENS // 3
    with SlowScoreServer() as server:
        output = ended(command("ray", server, options=("--max-tokens", str(limit))))
        passes = [it for it in kept(tables(tmp_path, "ray")) if "calls" in it]
        assert 0 < sum(it["prompt_tokens"] for it in passes) <= limit
        assert "--max-tokens" in output
        with SlowScoreServer() as other:
            process = command("ray", server, other)
            wait_until(lambda: len(other.at) > 2 * CALLS)
        output = " ".join(process.communicate(timeout=500)[0].split())

    assert process.returncode == 0, output
    assert f"{other.url} is down, and takes no more" in output
    assert kept(tables(tmp_path, "ray")) == expected


def test_conversations_of_every_format_can_be_sent_to_workers():
    from mindscore.archive.attempt import Work
    from mindscore.archive.ray_rows import pack
    from mindscore.archive.resuming import Past

    packed = 0
    for file in sorted(FIXTURES.glob("*.json*")):
        for _, transcript in Conversations(file).transcripts():
            its = pickle.loads(pack(Work(transcript, "", (), 0, Past()))).transcript
            for message, other in zip(transcript.messages, its.messages, strict=True):
                for key in message.memory_keys():
                    left = frozenset([key])
                    assert other.text_without(left) == message.text_without(left)
            packed += bool(transcript.keys())

    assert packed >= 10
