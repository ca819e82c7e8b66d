"""The command, conversations, a server, a plugin's distribution and a terminal."""

import asyncio
import fcntl
import itertools
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from mindhooks import FinetuneCandidate
from mindscore.cli import main
from mindscore.config.settings import StoreSettings
from mindscore.measure.prompts import response_hash
from mindscore.store import CandidateName, Review, Reviews, Store

COMMAND = Path(sys.executable).with_name("mindscore")
PATIENCE_S = 30
"""How long a test waits for something that always comes, before it gives up."""


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    """Nothing from the developer's shell decides about colours, widths or encodings."""
    for name in (
        "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE",
        "COLORTERM", "TERM", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONWARNINGS", "LANG",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("COLUMNS", "80")


# -- the command ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def document(self):
        """Standard output as one JSON document; NaN and Infinity are no JSON."""

        def refuse(name):
            raise ValueError(f"{name} is no JSON")

        return json.loads(self.out, parse_constant=refuse)

    @property
    def error(self):
        """The one line on standard error, less the name that it starts with."""
        assert self.err.startswith("mindscore: ")
        assert self.err.endswith("\n")
        assert len(self.err.splitlines()) == 1
        return self.err.removeprefix("mindscore: ").rstrip("\n")


@pytest.fixture
def cli(capsys):
    """Runs ``mindscore`` in this process: ``cli("config", "path")``."""

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return run


@pytest.fixture
def score(cli):
    """Runs ``mindscore score`` with the toy in this process: ``score(transcript, "--full")``."""
    return lambda *arguments: cli("score", *arguments, "--set", "server.scorer=toy")


@pytest.fixture
def command(forked):
    """Runs the command as a process: ``command("config", "path", NAME="of the environment")``."""

    def run(*arguments, **environment):
        done = forked.run(list(map(str, arguments)), inherited(environment), 2 * PATIENCE_S)
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


def inherited(environment):
    """The environment of a child: ours and ``environment``; its width it finds out itself."""
    return {name: it for name, it in {**os.environ, **environment}.items() if name != "COLUMNS"}


# -- conversations --------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path):
    """Writes a transcript: ``write(line, line, name="talk.jsonl")``."""

    def write(*lines, name="talk.jsonl"):
        file = tmp_path / name
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return file

    return write


@pytest.fixture
def talk(write):
    """Two memories, ``tea`` and ``dog``, each of use to one of two responses: 1 and 3."""
    return write(
        {"role": "system", "content": "You help."},
        {"role": "memory", "key": "tea", "content": "The user drinks green tea."},
        {"role": "memory", "key": "dog", "content": "The user has a dog called Rex."},
        {"role": "user", "content": "What do I drink?"},
        {"role": "assistant", "content": "You drink green tea.", "id": "drink"},
        {"role": "user", "content": "And my dog?"},
        {"role": "assistant", "content": "Your dog is called Rex.", "id": "pet"},
    )


@pytest.fixture
def numbered(write):
    """As ``talk``, but with token ids, for servers that do not tokenise.

    ``a`` holds the token 101 and ``b`` 102; response 1 says 101 and response 3 says 102.
    """

    def said(content, id_, *token_ids, **more):
        line = {"role": "assistant", "content": content, "id": id_, "token_ids": token_ids}
        return {**line, "body": [1, len(token_ids)], **more}

    return write(
        {"role": "memory", "key": "a", "content": "A", "token_ids": [101, 1]},
        {"role": "memory", "key": "b", "content": "B", "token_ids": [102, 1]},
        {"role": "user", "content": "one?", "token_ids": [5, 1]},
        said("One.", "r1", 6, 101, 1),
        {"role": "user", "content": "two?", "token_ids": [5, 1]},
        said("Two.", "r3", 6, 102, 1, timestamp="2026-03-03T10:00:00.123456789Z"),
        name="numbered.jsonl",
    )


# -- candidates -----------------------------------------------------------------------------------


@pytest.fixture
def candidates(tmp_path):
    """Keeps candidates in the user's own store: ``candidates(one="accepted", two=None)``.

    Their names are their nodes' ids; ``"alternate"`` and ``"edited"`` accept such an answer.
    """
    settings = StoreSettings(f"sqlite:///{tmp_path}/data/mindscore/store.sqlite3")
    store, reviews, numbers = Store(settings), Reviews(settings), itertools.count(10)

    async def keep(model, fields, decisions):
        for name, decision in decisions.items():
            number = next(numbers)
            found = FinetuneCandidate(
                **{
                    "entry_idx": number,
                    "node_id": name,
                    "divergence": 100.0 - number,
                    "response_text": "said",
                    "prior_context": "",
                    "context_ids": (1, 9, number),
                    "bare_context_ids": (1, number),
                    "continuation_ids": (number, 5),
                    "alternate_text": None,
                    "alternate_ids": (number, 6),
                    "timestamp_ns": number,
                    **fields,
                }
            )
            await store.record_candidate(found, model)
            answer = decision if decision in ("alternate", "edited") else "response"
            ids = (number, 9) if answer == "edited" else None
            if decision is not None:
                verdict = "rejected" if decision == "rejected" else "accepted"
                of = CandidateName(model, found.timestamp_ns, response_hash(found.continuation_ids))
                await reviews.decide(of, Review(verdict, answer, 1.0, None, ids))

    def make(model="m", fields=None, **decisions):
        asyncio.run(keep(model, fields or {}, decisions))

    return make


# -- a server -------------------------------------------------------------------------------------


def honest(body):
    """One nat for a token that the prompt has held before, three for any other."""
    tokens = body["prompt"]
    totals = [
        -sum(1.0 if tokens[index] in tokens[:index] else 3.0 for index in range(start, end))
        for start, end in body["score_ranges"]
    ]
    return web.json_response({"scores": [{"total_logprob": total} for total in totals]})


class ScoreServer:
    """The ``score`` protocol on 127.0.0.1, in a thread: ``answer(body)`` may be replaced;
    where it is ``None``, the server hangs up.

    While ``holds(body)`` is true for a request, it is not answered until ``release()``.
    """

    def __init__(self):
        self.answer = honest
        self.holds = lambda body: False
        self.held = threading.Event()
        """A request is being held."""
        self.asked = []
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    @property
    def options(self):
        """The options that make ``mindscore score`` use it, and try once only."""
        settings = {"scorer": "score", "base_url": self.url, "max_attempts": 1}
        return [it for key, value in settings.items() for it in ("--set", f"server.{key}={value}")]

    def release(self):
        self._loop.call_soon_threadsafe(self._released.set)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_):
        self.release()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        self._released, self._stop = asyncio.Event(), asyncio.Event()
        app = web.Application()
        app.router.add_post("/score", self._score)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _score(self, request):
        body = await request.json()
        self.asked.append(body)
        if self.holds(body):
            self.held.set()
            await self._released.wait()
        answer = self.answer(body)
        if answer is None:
            request.transport.abort()
            return web.Response()
        return answer


@pytest.fixture
def server():
    """A server that scores; see ``ScoreServer``."""
    with ScoreServer() as server:
        yield server


@pytest.fixture
def nobody():
    """The address of a port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


# -- plugins --------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path):
    """Installs a distribution ``acme`` 1.2.3 of one module; the environment that finds it.

    ``install(source, "loud = acme_loud:Loud")``; the module is called ``acme_loud``.
    """

    def install(source, *entries, group="mindhooks"):
        site = tmp_path / "site"
        info = site / "acme-1.2.3.dist-info"
        info.mkdir(parents=True)
        (site / "acme_loud.py").write_text(source, encoding="utf-8")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.2.3\n")
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *entries, ""]))
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths)}

    return install


# -- a terminal -----------------------------------------------------------------------------------


class Stream:
    """One end of a child's output: a pseudo-terminal of 80 columns, or a pipe."""

    def __init__(self, is_terminal):
        self._ours, self.childs = pty.openpty() if is_terminal else os.pipe()
        if is_terminal:
            fcntl.ioctl(self.childs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._got = b""
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._read)

    def start(self):
        """To be called once the child has its end."""
        os.close(self.childs)
        self._thread.start()

    def _read(self):
        while True:
            try:
                got = os.read(self._ours, 65536)
            except OSError:  # how Linux says that a terminal's last process has gone
                got = b""
            if not got:
                os.close(self._ours)
                return
            with self._more:
                self._got += got
                self._more.notify_all()

    def wait_for(self, text):
        with self._more:
            return self._more.wait_for(lambda: text.encode() in self._got, PATIENCE_S)

    def text(self):
        """All of it, at the child's end."""
        self._thread.join()
        return self._got.decode()


@pytest.fixture
def terminal():
    """Runs the real command with both outputs on terminals of their own, 80 columns wide.

    ``out=False`` and ``err=False`` put a pipe there instead. ``when=(text, act)`` calls
    ``act(process)`` as soon as ``text`` has been seen on standard error.
    """

    def run(*arguments, out=True, err=True, when=None, **environment):
        streams = Stream(out), Stream(err)
        process = start(*arguments, streams=streams, TERM="xterm-256color", **environment)
        for stream in streams:
            stream.start()
        if when is not None:
            text, act = when
            streams[1].wait_for(text)
            act(process)
        try:
            process.wait(2 * PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Ran(process.returncode, *(stream.text() for stream in streams))

    return run


def start(*arguments, streams, **environment):
    # A test runner that was started in the background ignores SIGINT, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=streams[0].childs,
            stderr=streams[1].childs,
            env=inherited(environment),
        )
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def interrupt(server):
    """What ``terminal`` is to do to interrupt the command, as Ctrl-C does, while it is waiting."""

    def act(process):
        assert server.held.wait(PATIENCE_S)
        process.send_signal(signal.SIGINT)

    return act
