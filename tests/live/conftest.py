"""A real vLLM, one configuration after the other, and the command against it."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.live import conversations, environment
from tests.live.gateway import gateway
from tests.live.models import TEMPLATES, write_model
from tests.live.server import NAME, PATIENCE_S, PLUGIN, SCALED_OUT, Server

from mindscore.cli import main

CLOSE = 1e-3
"""Nats by which a value may differ from ``local``'s."""


@dataclass(frozen=True)
class Kind:
    """How a server is started; without a template, it serves SmolLM2."""

    template: str | None
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


KINDS = {
    "equipped": Kind("only-adds", SCALED_OUT, PLUGIN),
    "plain": Kind(None),
    "uncached": Kind("looks-back", (*SCALED_OUT, "--no-enable-prefix-caching"), PLUGIN),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests the time to start a server on a busy machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * PATIENCE_S))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, conversations and logs of the session."""
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[Server]:
    """The server of a kind that the test names: ``parametrize("server", ["plain"], indirect)``."""
    environment.main()
    if environment.REASON.exists():
        pytest.skip(environment.REASON.read_text("utf-8").strip())
    environment.install_mindscore()
    kind = KINDS[request.param]
    if kind.template is None:
        from mindscore.scorers.local.weights import SMOLLM2, locate

        model = Path(locate(SMOLLM2))
    else:
        model = folder / kind.template
        write_model(model, TEMPLATES[kind.template])
    options = ("--max-model-len", "4096", *kind.options)
    server = Server(model, folder / f"{request.param}.log", options, kind.environment)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def paths(request: pytest.FixtureRequest, server: Server) -> Iterator[str]:
    """The address of the server, or of a gateway that hides the paths that the test names."""
    if not request.param:
        yield server.url
        return
    with gateway(server.url, request.param) as url:
        yield url


@pytest.fixture(scope="session")
def written(folder: Path) -> dict[str, list[str]]:
    """The arguments of ``mindscore score`` for each conversation."""
    return conversations.write(folder)


# -- the command ----------------------------------------------------------------------------------


Signed = list[list[float | None]]


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def signed(self) -> Signed:
        """The matrix."""
        assert self.status == 0, self.err
        return json.loads(self.out)["signed"]  # type: ignore[no-any-return]

    @property
    def stats(self) -> dict[str, Any]:
        """Calls and tokens."""
        return json.loads(self.out)["stats"]  # type: ignore[no-any-return]


def _arguments(conversation: list[str], store: Path, *more: str, **server: object) -> list[str]:
    settings = {"store.url": f"sqlite:///{store}"}
    settings |= {f"server.{name}": str(value) for name, value in server.items()}
    given = [it for name, value in settings.items() for it in ("--set", f"{name}={value}")]
    return ["score", *conversation, "--full", "--json", *more, *given]


def _run(arguments: list[str]) -> Ran:
    with (
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")) as out,
        contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO(), "utf-8")) as err,
    ):
        status = main(arguments)
        out.seek(0)
        err.seek(0)
        return Ran(status, out.read(), err.read())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A file for a database of scores."""
    return tmp_path / "scores.sqlite3"


@pytest.fixture
def score(server: Server, written: dict[str, list[str]], store: Path) -> Callable[..., Ran]:
    """Scores a conversation in this process: ``score("lines", scorer="vllm")``."""
    # Random weights are no language model, as which the self-test takes a server's.
    usual = {"model": NAME, "base_url": server.url, "self_test": "false"}

    def run(conversation: str, *more: str, **settings: object) -> Ran:
        given = {**usual, **settings}
        return _run(_arguments(written[conversation], store, *more, **given))

    return run


class Running:
    """A command that runs in a process of its own."""

    def __init__(self, arguments: list[str]) -> None:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            # What is ignored here would be ignored there.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mindscore", *arguments],
                env=os.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def wait(self) -> Ran:
        """Return what it printed, once it has ended."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return Ran(self.process.returncode, out, err)


@pytest.fixture
def begin(server: Server, written: dict[str, list[str]]) -> Iterator[Callable[..., Running]]:
    """Begins to score a conversation: ``begin("lines", store, scorer="vllm")``."""
    usual = {"model": NAME, "base_url": server.url, "self_test": "false"}
    begun: list[Running] = []

    def run(conversation: str, store: Path, *more: str, **settings: object) -> Running:
        given = {**usual, **settings}
        begun.append(Running(_arguments(written[conversation], store, *more, **given)))
        return begun[-1]

    yield run
    for it in begun:
        it.process.kill()
        it.process.communicate()


# -- what is right --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _locally(folder: Path, written: dict[str, list[str]]) -> Callable[[Path, str], Signed]:
    @functools.cache
    def run(model: Path, conversation: str) -> Signed:
        store = folder / f"{model.name}-{conversation}.sqlite3"
        return _run(_arguments(written[conversation], store, scorer="local", model=model)).signed

    return run


@pytest.fixture
def assert_right(
    server: Server, _locally: Callable[[Path, str], Signed]
) -> Callable[[str, Signed], None]:
    """Compares a matrix with ``local``'s of the same weights: ``assert_right("lines", signed)``."""

    def compare(conversation: str, signed: Signed) -> None:
        expected = _locally(server.model, conversation)
        assert any(abs(it or 0) > CLOSE for row in expected for it in row), (
            "no memory has an effect"
        )
        assert len(signed) == len(expected)
        for row, right in zip(signed, expected, strict=True):
            assert row == pytest.approx(right, abs=CLOSE, rel=0)

    return compare
