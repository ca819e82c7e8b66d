"""``mindscore`` in processes that are forked from one that has imported it.

Each is a process of its own, with arguments, an environment, a folder and streams as a user's has;
only Python and what the command imports are there already, which else is most of a test's time.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

COMMAND = Path(sys.executable).with_name("mindscore")
ENCODING = "C.UTF-8"
# As in tests of the command: nothing from the developer's shell.
OURS = ("COLUMNS", "LINES", "MINDSCORE", "PYTHONIOENCODING", "PYTHONUTF8", "TERM", "XDG_")

FORKING = """
import gc, json, os, pkgutil, socket, sys
from importlib import import_module

# Where the command is, as Python puts it there, and not the current folder.
sys.path[0] = os.path.dirname(sys.argv[2])
import mindscore.cli
for module in pkgutil.iter_modules(mindscore.cli.__path__, "mindscore.cli."):
    import_module(module.name)
for name in (
    "mindscore.flows.finetune", "mindscore.flows.memory", "mindscore.flows.recorder",
    "mindscore.scorers.toy", "rich.console", "rich.table", "sqlalchemy.dialects.sqlite",
):
    import_module(name)
gc.freeze()
asked = socket.socket(fileno=int(sys.argv[1]))
while True:
    request, streams, _, _ = socket.recv_fds(asked, 1 << 20, 3)
    if not request:
        sys.exit()
    child = os.fork()
    if child == 0:
        break
    for stream in streams:
        os.close(stream)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    asked.send(str(status).encode())
asked.close()
arguments, environment, folder = json.loads(request)
os.environ.clear()
os.environ.update(environment)
os.chdir(folder)
for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
found = environment.get("PYTHONPATH", "").split(os.pathsep)
sys.path[1:1] = [it for it in found if it and it not in sys.path]
sys.argv = [sys.argv[2], *arguments]
sys.exit(mindscore.cli.main())
"""


class ForkServer:
    """A process that has imported the command, and forks each time that it is to run."""

    def __enter__(self) -> ForkServer:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inherited = {it: os.environ[it] for it in os.environ if not it.startswith(OURS)}
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-c", FORKING, str(its.fileno()), str(COMMAND)],
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                process_group=0,
                env={**inherited, "LC_ALL": ENCODING},
            )
        self._asked = ours
        return self

    def __exit__(self, *_: object) -> None:
        self._asked.close()
        self._process.wait()

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``mindscore`` in the current folder, without a standard input.

        Raises:
            TimeoutError: it did not end; no other command can be run.
        """
        request = json.dumps([arguments, dict(environment), str(Path.cwd())]).encode()
        self._asked.settimeout(timeout)
        with (
            Path(os.devnull).open("rb") as nothing,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            socket.send_fds(self._asked, [request], [it.fileno() for it in (nothing, out, err)])
            try:
                status = int(self._asked.recv(16))
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode("utf-8"))
        return subprocess.CompletedProcess([str(COMMAND), *arguments], status, *texts)
