"""``mindscore collect`` as a process: ready, asked, killed, and begun again."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from mindscore.cli import main
from mindscore.collect.queue import CollectedTurns

from .conftest import PROTOBUF, request_of

COMMAND = Path(sys.executable).with_name("mindscore")
TOY = ["--set", "server.scorer=toy", "--set", "memory.token_cutoff=1.0"]
PATIENCE_S = 30
TURN = {
    "conversation": "kitchen",
    "messages": [
        {"role": "system", "content": "Nora drinks rooibos."},
        {"role": "user", "content": "What shall I drink?"},
    ],
    "response": {"content": "A pot of rooibos."},
    "memories": {"tea": "Nora drinks rooibos."},
}


class Collecting:
    """A collector process that is ready; ``url`` is what it printed."""

    def __init__(self, process):
        self.process = process
        line = process.stdout.readline()
        found = re.match(r"collecting at (http://[^/]+)/v1/traces and ", line)
        assert found, line + process.stderr.read()
        self.url = found[1]

    def ask(self, path, body, headers):
        request = urllib.request.Request(self.url + path, body, headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read()

    def turn(self, **more):
        body = json.dumps({**TURN, **more}).encode()
        return self.ask("/v1/turns", body, {"Content-Type": "application/json"})[0]

    def end(self, number):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@pytest.fixture
def environment(tmp_path):
    """One with a data folder of its own."""
    return {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")}


@pytest.fixture
def collecting(environment):
    """``with collecting("--idle-s", "0") as it``."""

    @contextmanager
    def collecting(*arguments):
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                [COMMAND, "collect", "--port", "0", *TOY, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                env=environment,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        with process:
            try:
                yield Collecting(process)
            finally:
                process.kill()

    return collecting


@pytest.fixture
def run(environment, monkeypatch, capsys):
    """``run("--once")``: the command in this process; status, output and errors."""
    monkeypatch.setenv("XDG_DATA_HOME", environment["XDG_DATA_HOME"])

    def run(*arguments):
        capsys.readouterr()
        status = main(["collect", *arguments])
        return status, *capsys.readouterr()

    return run


def test_it_collects_scores_and_ends_when_it_is_told_to(collecting):
    with collecting("--idle-s", "0") as it:
        assert it.turn(id="t1") == 202
        assert it.turn(id="t1") == 200
        assert it.process.stdout.readline().startswith("kitchen: 1 turn; tea ")
        assert it.end(signal.SIGTERM) == (0, "", "")


def test_what_waits_is_scored_later_and_only_one_works_on_a_queue(collecting, run):
    with collecting() as it:
        assert it.turn() == 202
        status, _, err = run("--once", *TOY)
        assert (status, len(err.splitlines())) == (2, 1)
        assert "another mindscore collect" in err
        assert run("--once", *TOY, "--set", "store.namespace=My agent") == (0, "", "")
        assert it.end(signal.SIGINT) == (130, "", "mindscore: interrupted\n")
    status, out, err = run("--once", *TOY)
    assert (status, err) == (0, "")
    assert re.fullmatch(r"kitchen: 1 turn; tea \d+\.\d nats, by toy\n", out)
    assert run("--once", *TOY) == (0, "", "")


def test_other_machines_need_a_key_that_is_private(run, tmp_path):
    status, _, err = run("--host", "0.0.0.0", *TOY)
    assert (status, "--key-file" in err) == (2, True)
    key = tmp_path / "key"
    key.write_text("sk-very-secret\n")
    key.chmod(0o644)
    status, _, err = run("--host", "0.0.0.0", "--key-file", str(key), *TOY)
    assert (status, "chmod 600" in err, "sk-very" in err) == (2, True, False)


def test_the_senders_key_is_not_that_of_the_models_server(environment, collecting, tmp_path):
    environment["MINDSCORE_API_KEY"] = "sk-of-the-server"
    key = tmp_path / "key"
    key.write_text("sk-of-senders\n")
    key.chmod(0o600)
    with collecting("--key-file", str(key)) as it:
        headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-of-the-server"}
        with pytest.raises(urllib.error.HTTPError, match="401") as caught:
            it.ask("/v1/turns", b"{}", headers)
        caught.value.close()
        headers["Authorization"] = "Bearer sk-of-senders"
        assert it.ask("/v1/turns", json.dumps(TURN).encode(), headers)[0] == 202


def test_what_was_acknowledged_outlives_a_kill_and_is_there_once(collecting, span, tmp_path):
    def body(number, turn):
        said = [f"{kind}{at} of {number}" for at in range(turn + 1) for kind in "ua"]
        ids = {"trace": f"{number:032x}", "span": f"{turn + 1:016x}"}
        return request_of(span("s", *said, name=f"c{number}", **ids))

    sent = [body(number, turn) for turn in range(4) for number in range(20)]
    acknowledged, at = set(), 0
    for kills in (True, False):
        with collecting("--idle-s", "100000") as it:
            while at < len(sent):
                if kills and at == len(sent) // 2:
                    # While it stores the next ones.
                    threading.Timer(0.01, it.process.kill).start()
                try:
                    assert it.ask("/v1/traces", sent[at], PROTOBUF)[0] == 200
                except OSError:
                    break
                acknowledged.add(at)
                at += 1
            # As an exporter does: what was not answered is sent again, and some of what was.
            at = max(0, at - 2)
    assert acknowledged == set(range(len(sent)))
    queue = CollectedTurns(tmp_path / "data" / "mindscore" / "collect" / "default.sqlite3", 2**20)
    found = queue.waiting()
    assert (found.conversations, found.turns) == (20, 80)
    while (it := queue.next(after=0)) is not None:
        assert (len(it.record.messages), it.turns) == (8, 4)
        queue.remove(it)


def test_without_opentelemetrys_types_it_says_what_to_install(run, monkeypatch):
    for name in ("app", "endpoints", "otlp"):
        monkeypatch.delitem(sys.modules, f"mindscore.collect.{name}")
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    status, out, err = run("--once", *TOY)
    assert (status, out) == (2, "")
    assert "pip install 'mindscore[collect]'" in err
