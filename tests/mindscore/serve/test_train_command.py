"""``mindscore serve --train`` as a process: sent to, killed, begun anew."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

import mindscore
from mindhooks import FinetuneCandidate
from mindscore.cli import main

from ..tiny_model import write_tiny_model
from ..training_processes import trainers

COMMAND = Path(sys.executable).with_name("mindscore")
PATIENCE_S = 300

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are read from /proc")


class Server:
    """A process that serves and trains; ``url`` is what it printed."""

    def __init__(self, process):
        self.process = process
        self.line = process.stdout.readline()
        assert "http://" in self.line, self.line + process.stderr.read()
        self.url = self.line.split('"')[1]

    def ask(self, path, body=None, **headers):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def until(self, job_id, wanted):
        """The job, once ``wanted(job)`` holds."""
        began = time.monotonic()
        while not wanted(job := self.ask(f"/train/{job_id}")):
            assert time.monotonic() - began < PATIENCE_S, job
            time.sleep(0.02)
        return job


@pytest.fixture
def training(tmp_path, tokenizer_file):
    """``with training() as it``: the tiny model, its data in a folder of the test's own."""
    model = write_tiny_model(tmp_path / "model", tokenizer_file)

    @contextmanager
    def training():
        with subprocess.Popen(
            [COMMAND, "serve", "--train", "--port", "0", "--set", f"server.model={model}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")},
        ) as process:
            try:
                yield Server(process)
            finally:
                process.kill()

    return training


def candidate(context_ids, continuation_ids, timestamp_ns):
    return FinetuneCandidate(
        entry_idx=1,
        node_id="n",
        divergence=2.0,
        response_text="text",
        prior_context="",
        context_ids=context_ids,
        bare_context_ids=context_ids,
        continuation_ids=continuation_ids,
        alternate_text=None,
        alternate_ids=None,
        timestamp_ns=timestamp_ns,
    )


def many_samples():
    """What a tiny model needs minutes for."""
    return [
        {"context_ids": [number, *range(3, 200)], "continuation_ids": [5, 6]}
        for number in range(400)
    ]


def none_trains_in(folder):
    began = time.monotonic()
    while trainers(folder):
        assert time.monotonic() - began < PATIENCE_S
        time.sleep(0.02)


def test_candidates_are_sent_to_it_and_jobs_survive_its_death(training, tmp_path):
    long = {"training_data": {"samples": many_samples()}}
    key = {"Idempotency-Key": "k"}
    with training() as it:
        settings = {
            "server": {"base_url": it.url, "self_test": False},
            "store": {"url": f"sqlite:///{tmp_path}/store.sqlite3"},
        }
        candidates = [candidate((3, 4, 5), (6, 7), 1), candidate((3, 4, 5, 6, 7, 8), (9,), 2)]
        sent = asyncio.run(mindscore.send_to_train(candidates, settings))
        job = it.until(sent, lambda job: job["status"] not in ("queued", "running"))
        assert (job["status"], job["samples"], job["tokens"]) == ("succeeded", 2, 3)
        killed = it.ask("/train", long, **key)["job_id"]
        it.until(killed, lambda job: job["status"] == "running" and trainers(tmp_path))
        it.process.kill()
        none_trains_in(tmp_path)
    with training() as it:
        assert it.ask(f"/train/{sent}")["status"] == "succeeded"
        assert it.ask("/train", long, **key)["job_id"] == killed
        it.until(killed, lambda job: job["status"] == "running" and trainers(tmp_path))
        assert it.ask(f"/train/{sent}/activate", {})["active"] is True
        it.process.send_signal(signal.SIGTERM)
        assert it.process.wait(PATIENCE_S) == 0
        none_trains_in(tmp_path)
    with training() as it:
        adapter = it.ask(f"/train/{sent}")["adapter"]
        assert f", adapter {adapter}: " in it.line
        it.until(killed, lambda job: job["status"] == "running" and trainers(tmp_path))
        # What was learnt before is not lost.
        job = json.loads((tmp_path / "data/mindscore/adapters" / killed / "job.json").read_text())
        assert job["start"] == adapter
        it.process.send_signal(signal.SIGTERM)
        assert it.process.wait(PATIENCE_S) == 0
        none_trains_in(tmp_path)
        assert it.process.stderr.read() == ""


def test_what_has_no_weights_is_not_trained(capsys):
    assert main(["serve", "--train", "--port", "0", "--set", "server.scorer=toy"]) == 2
    assert "server.scorer" in capsys.readouterr().err
