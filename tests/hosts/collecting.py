"""A ``mindscore collect`` of its own, and what it has measured."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

PATIENCE_S = 120
TYPES = "opentelemetry-proto==1.45.2"
"""The requirement of ``mindscore collect``."""

MINDSCORE = Path(sys.executable).with_name("mindscore")


class Collector:
    """A server on loopback, with a store in ``folder``."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.config = folder / "config.toml"
        self.config.write_text(
            f'[server]\nscorer = "toy"\n[store]\nurl = "sqlite:///{folder}/store.sqlite3"\n'
            "[memory]\ntoken_cutoff = 1.0\ninterval_s = 0\n"
        )
        self.environment = {
            **os.environ,
            "MINDSCORE_CONFIG": str(self.config),
            "XDG_DATA_HOME": str(folder / "data"),
        }

    def mindscore(self, *arguments: str) -> str:
        """Return what the command prints."""
        ran = subprocess.run(
            [MINDSCORE, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ran.returncode == 0, (ran.returncode, ran.stdout, ran.stderr)
        return ran.stdout

    def scores(self, conversation: str, *keys: str) -> dict[str, float]:
        """Return the scores of a conversation, once they are those of all ``keys``."""
        end = time.monotonic() + PATIENCE_S
        listed: list[Any] = []
        while time.monotonic() < end:
            listed = json.loads(self.mindscore("show", "--json"))["conversations"]
            if any(it["id"] == conversation for it in listed):
                shown = json.loads(self.mindscore("show", conversation, "--json"))["results"]
                rows = [row for it in shown if it["command"] == "score" for row in it["scores"]]
                scores = {row["key"]: row["last_score"] for row in rows}
                if set(keys) <= set(scores):
                    return scores
            time.sleep(1)
        raise AssertionError(f"{conversation} has no scores of {keys}: {listed}")


@contextmanager
def collector(folder: Path, *options: str) -> Iterator[Collector]:
    """Run the server for the block, and end it as Ctrl-C does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Collector(folder, port)
    command = [MINDSCORE, "collect", "--port", str(port), "--idle-s", "1", *options]
    process = subprocess.Popen(command, env=server.environment)
    try:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urlopen(f"{server.url}/v1/health", timeout=5) as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert process.poll() is None, "mindscore collect ended"
                assert time.monotonic() < end, "mindscore collect does not answer"
                time.sleep(0.2)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
