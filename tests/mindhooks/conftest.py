"""Fixtures of the contract's tests: plugins, values, a log reader, distributions on disk."""

import asyncio
import gc
import importlib
import logging
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from types import ModuleType, SimpleNamespace

import pytest

from mindhooks import FinetuneCandidate, MemoryScore, MemoryStats, hookimpl


@pytest.fixture
def score():
    """Makes a score of the memory ``key``."""
    return lambda key="k": MemoryScore(key, 1.0, "incremental", ())


@pytest.fixture
def candidate():
    """Makes a candidate of the response ``node_id``."""

    def make(node_id="n"):
        return FinetuneCandidate(
            entry_idx=0,
            node_id=node_id,
            divergence=1.0,
            response_text="",
            prior_context="",
            context_ids=(1,),
            bare_context_ids=(),
            continuation_ids=(2,),
            alternate_text=None,
            alternate_ids=None,
            timestamp_ns=0,
        )

    return make


@pytest.fixture(params=["on_score", "on_candidate"])
def emit(request, score, candidate):
    """Emits something labelled; the test runs once with a score and once with a candidate."""
    if request.param == "on_score":
        return lambda registry, label: registry.emit_score(score(label))
    return lambda registry, label: registry.emit_candidate(candidate(label))


@pytest.fixture
def plain():
    """Makes a plugin of plain listeners that pass what they are told of, as a label, on."""

    def make(hear, **options):
        @hookimpl(**options)
        def on_score(score):
            return hear(score.key)

        @hookimpl(**options)
        def on_candidate(candidate):
            return hear(candidate.node_id)

        return SimpleNamespace(on_score=on_score, on_candidate=on_candidate)

    return make


@pytest.fixture
def asynchronous():
    """Makes a plugin as ``plain`` does, of async listeners."""

    def make(hear, **options):
        @hookimpl(**options)
        async def on_score(score):
            return await hear(score.key)

        @hookimpl(**options)
        async def on_candidate(candidate):
            return await hear(candidate.node_id)

        return SimpleNamespace(on_score=on_score, on_candidate=on_candidate)

    return make


@pytest.fixture
def stats():
    """Makes a memory run's statistics that say ``calls``."""
    return lambda calls=1: MemoryStats({}, calls, 0, None, 0.0)


@pytest.fixture
def settle():
    """Lets the loop do all that it can do without time passing."""

    async def settle():
        for _ in range(30):
            await asyncio.sleep(0)

    return settle


@pytest.fixture
def complaints(caplog):
    """Every line that logger ``mindhooks`` wrote so far; each is indeed one line."""
    caplog.set_level(logging.WARNING, logger="mindhooks")

    def lines():
        found = [record.getMessage() for record in caplog.records if record.name == "mindhooks"]
        assert all(len(line.splitlines()) == 1 for line in found)
        return found

    return lines


@pytest.fixture
def run_program():
    """Return the output of a fresh interpreter, which may write nothing to standard error."""

    def run(program):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


class _Reports(logging.Handler):
    """Keeps the errors that asyncio logs."""

    def __init__(self):
        super().__init__(logging.ERROR)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@pytest.fixture(scope="module")
def _asyncio_reports():
    """No test may leave an exception that nobody retrieved, nor a callback that raised.

    asyncio reports some of them only when the task is collected. A collection after each test would
    cost more than the tests, so there is one at the end of each module.
    """
    reports = _Reports()
    logging.getLogger("asyncio").addHandler(reports)
    yield reports
    gc.collect()
    logging.getLogger("asyncio").removeHandler(reports)
    assert reports.messages == []


@pytest.fixture(autouse=True)
def _asyncio_has_nothing_to_report(_asyncio_reports):
    """Names the test after which asyncio reported something, where it is known at once."""
    yield
    reported = list(_asyncio_reports.messages)
    _asyncio_reports.messages.clear()
    assert reported == []


@pytest.fixture
def journal(monkeypatch):
    """A list that modules of a test distribution append to: ``from journal import journal``."""
    module = ModuleType("journal")
    module.journal = []
    monkeypatch.setitem(sys.modules, "journal", module)
    return module.journal


class Distributions:
    """Installs distributions into a folder of its own, ahead of all others on ``sys.path``."""

    def __init__(self, folder, monkeypatch):
        self._folder = folder
        self._monkeypatch = monkeypatch
        folder.mkdir()
        # What is really installed is none of a test's business: hide it behind empty namesakes.
        for group in ("mindhooks", "mindhooks.scorers", "mindhooks.sinks"):
            for entry in entry_points(group=group):
                if entry.dist is not None:
                    self._write(entry.dist.name, entry.dist.version, "")
        monkeypatch.syspath_prepend(folder)

    def install(self, name, entries=None, *, version="1.0", scorers=None, sinks=None, **modules):
        """One distribution: entry points (name to target) and modules (name to source)."""
        for module, source in modules.items():
            self._folder.joinpath(f"{module}.py").write_text(textwrap.dedent(source))
            # Set first, so that it is this that is undone: the test's import is forgotten.
            self._monkeypatch.setitem(sys.modules, module, ModuleType(module))
            self._monkeypatch.delitem(sys.modules, module)
        text = ""
        groups = {"mindhooks": entries, "mindhooks.scorers": scorers, "mindhooks.sinks": sinks}
        for group, targets in groups.items():
            text += f"[{group}]\n"
            text += "".join(f"{key} = {target}\n" for key, target in (targets or {}).items())
        self._write(name, version, text)
        importlib.invalidate_caches()

    def _write(self, name, version, entries):
        info = self._folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        info.joinpath("entry_points.txt").write_text(entries)


@pytest.fixture
def distributions(tmp_path, monkeypatch):
    """Installs distributions for the length of the test; nothing else seems to be installed."""
    return Distributions(tmp_path / "site", monkeypatch)
