"""A vLLM in processes of its own, which end when the tests do, however these end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.live.environment import FOLDER

NAME = "m"
"""What the model is called on the server."""

SCALED_OUT = ("--enable-scale-out", "--enable-prompt-tokens-details")
PLUGIN = {"VLLM_PLUGINS": "mindscore"}
STOCK = ("/v1/score",)
"""Paths that a vLLM without the plugin lacks; and one without ``--enable-scale-out``, too."""
BARE = (*STOCK, "/inference/v1/generate")

PATIENCE_S = 600
"""How long one waits for what always comes, on a machine that is busy."""

_PR_SET_PDEATHSIG = 1


class Server:
    """A vLLM that serves the model in a folder; ``log`` gets what it prints."""

    def __init__(
        self, model: Path, log: Path, options: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.model = model
        self.url = f"http://127.0.0.1:{self._port}/v1"
        self._log = log
        self._options = options
        quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONDONTWRITEBYTECODE": ""}
        small = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_PLUGINS": ""}
        self._environment = {**os.environ, **quiet, **small, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            AssertionError: it has ended, or does not answer; the text has the end of its log.
        """
        command = [str(FOLDER / "bin" / "vllm"), "serve", str(self.model)]
        command += ["--served-model-name", NAME, "--dtype", "float32", "--enforce-eager"]
        # A request that is given up leaves a line in the log.
        command += [
            "--enable-log-requests",
            "--host",
            "127.0.0.1",
            "--port",
            str(self._port),
            *self._options,
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the tests, which then stop it with all of its processes.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self.wait_until(self._answers, "answers")

    def stop(self) -> None:
        """End it with all of its processes."""
        if self._process is not None:
            self._process.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(20)
            finally:
                self.kill()

    def kill(self) -> None:
        """End all of its processes at once, as a crash does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until ``condition`` holds.

        Raises:
            AssertionError: it never does, or the server has ended.
        """
        until = time.monotonic() + PATIENCE_S
        while not condition():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > until:
                said = self._log.read_text(errors="replace")[-3000:]
                raise AssertionError(f"no server that {what}:\n{said}")
            time.sleep(0.05)

    def count(self, metric: str) -> float:
        """Return the sum of a Prometheus metric, whatever its labels."""
        pattern = re.compile(rf"^{re.escape(metric)}(?:\{{.*\}})? (\S+)$", re.MULTILINE)
        found = pattern.findall(self.get("/metrics"))
        assert found, metric
        return sum(map(float, found))

    def aborted(self) -> int:
        """Return how many requests it has given up."""
        return self._log.read_text(errors="replace").count(" aborted.")

    def get(self, path: str) -> str:
        """Return the answer of a path outside of ``/v1``."""
        root = self.url.removesuffix("/v1")
        with urllib.request.urlopen(root + path, timeout=30) as answer:
            return str(answer.read().decode())

    def _answers(self) -> bool:
        try:
            self.get("/health")
        except OSError:
            return False
        return True


def _end_with_parent() -> None:
    """Have this process get SIGTERM when the one that started it ends, were it by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
