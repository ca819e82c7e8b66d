"""A pass over an archive loses nothing: it is killed at random, and goes on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.archive_shapes import write_archive

from .attack import Attacks, Finding

SEED = 16
CONVERSATIONS = 100
COMMAND = Path(sys.executable).with_name("mindscore")


def killed_passes(trials: int, conversations: int = CONVERSATIONS) -> Finding:
    """Kill one pass ``trials`` times at random moments, and compare with one that was not."""
    chance, failures, kills = random.Random(SEED), list[str](), 0
    with tempfile.TemporaryDirectory(prefix="mindscore-faults-") as name:
        folder = Path(name)
        write_archive(folder, conversations)
        started = time.monotonic()
        _start(folder, "whole").communicate()
        seconds = time.monotonic() - started
        for _ in range(trials):
            running = _start(folder, "killed")
            # Most of them while it scores, some while it starts and reads.
            time.sleep(chance.uniform(0.2, 1 + 2 * seconds / trials))
            kills += running.poll() is None
            running.kill()
            running.communicate()
        ended = _start(folder, "killed")
        _, said = ended.communicate()
        if ended.returncode:
            failures.append(f"the pass after the kills: exit status {ended.returncode}: {said}")
        if _evidence(folder, "killed") != _evidence(folder, "whole"):
            failures.append("the evidence is not that of a pass in one go")
    return Finding(
        "a pass over an archive that is killed goes on, and ends with the same evidence",
        "kill -9 of a real process at random moments of one pass",
        trials,
        failures,
        f"{kills} killed, of {conversations} conversations",
    )


def _start(folder: Path, store: str) -> subprocess.Popen[str]:
    options = ["--memories", folder / "memories.json", "--full", *_settings(folder, store)]
    return _run("score", folder / "conversations", *options, "--set", "server.scorer=toy")


def _settings(folder: Path, store: str) -> list[str]:
    return ["--set", f"store.url=sqlite:///{folder}/{store}"]


def _run(*arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MINDSCORE_CONFIG": os.devnull},
    )


def _evidence(folder: Path, store: str) -> list[dict[str, Any]]:
    file = folder / f"{store}.jsonl"
    _run("store", "export", file, "--format", "jsonl", *_settings(folder, store)).communicate()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [{name: it for name, it in row.items() if name != "scored_at"} for row in rows]


ATTACKS: Attacks = {killed_passes: 20}
