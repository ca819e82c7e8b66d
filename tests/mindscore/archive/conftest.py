"""Small archives of several formats, and passes over them."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.bench.archive_shapes import write_archive

from mindscore.archive import ray_pass
from mindscore.cli import main

from .ray_pipeline import Pipeline

COMMAND = Path(sys.executable).with_name("mindscore")


@pytest.fixture
def archive(tmp_path):
    """Ten conversations of five formats: the folder of ``archive_shapes``."""
    write_archive(tmp_path / "archive", 10)
    return tmp_path / "archive"


class Done:
    """What a command has done: its status, and the lines and documents that it printed."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def documents(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def mindscore(capsys, tmp_path, monkeypatch):
    """Runs a command in this process, with the toy and a store of the test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*arguments, store="store", servers=("--set", "server.scorer=toy")):
        capsys.readouterr()
        given = [str(it) for it in arguments]
        if given[0] in ("score", "plan"):
            given += servers
        status = main([*given, "--set", f"store.url=sqlite:///{tmp_path}/{store}"])
        return Done(status, *capsys.readouterr())

    return run


@pytest.fixture
def over(archive, mindscore):
    """Runs ``score`` over the archive: ``over("--full", store="other")``."""
    folder, memories = archive / "conversations", archive / "memories.json"
    return lambda *arguments, **named: mindscore(
        "score", folder, "--memories", memories, *arguments, **named
    )


@pytest.fixture
def evidence(tmp_path, mindscore):
    """The evidence of a store as JSON Lines, without times."""

    def read(store="store"):
        file = tmp_path / f"{store}.jsonl"
        assert mindscore("store", "export", file, "--format", "jsonl", store=store).status == 0
        lines = [json.loads(it) for it in file.read_text(encoding="utf-8").splitlines()]
        return [{name: it for name, it in line.items() if name != "scored_at"} for line in lines]

    return read


@pytest.fixture
def passes(tmp_path):
    """The records of passes in a store, by conversation."""

    def read(store="store"):
        with closing(sqlite3.connect(tmp_path / store)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("SELECT * FROM passes").fetchall()
            return {it["conversation"]: dict(it) for it in found}

    return read


@pytest.fixture
def start(archive, tmp_path):
    """Starts ``score`` over the archive in a process of its own."""

    def start(*arguments, store="store"):
        command = [COMMAND, "score", archive / "conversations"]
        command += ["--memories", archive / "memories.json", *arguments]
        command += [
            "--set",
            "server.scorer=toy",
            "--set",
            f"store.url=sqlite:///{tmp_path}/{store}",
        ]
        environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}
        return subprocess.Popen(
            [str(it) for it in command],
            env=environment,
            stdout=subprocess.PIPE,
            # It cannot print what nobody reads, so that it has not ended when it is sent a signal.
            pipesize=4096,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    return start


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """Ray's pipeline in this process, with a data folder of the test's own."""
    monkeypatch.setattr(ray_pass.platformdirs, "user_data_path", lambda _: tmp_path / "data")
    return Pipeline(monkeypatch)
