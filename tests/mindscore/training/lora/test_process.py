"""The training process: told what to do, watched, ended."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mindscore._util.errors import TrainError
from mindscore.training.lora.job import Job, Recipe, train_adapter

from ...training_processes import trainers

PATIENCE_S = 300

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are read from /proc")


@pytest.fixture
def job(tiny_model, samples):
    """A job of the tiny model: ``job(epochs=3)``; without ``epochs``, it does not end."""

    def job(epochs=1_000_000, **more):
        return Job(tiny_model, samples, Recipe(epochs=epochs, target=0.0), **more)

    return job


@dataclass
class Training:
    """A training that has ended, which several tests look at: starting one takes seconds."""

    adapter: Path
    told: list = field(default_factory=list)
    sessions: set = field(default_factory=set)


@pytest.fixture(scope="module")
def training(tiny_model, samples, tmp_path_factory):
    """Three epochs, in a folder that has a ``msgspec.py``, while a library prints.

    The library does it as one in C does: past Python, to the file descriptor.
    """
    folder = tmp_path_factory.mktemp("training")
    lines = [
        "import os, sys",
        "def hear(event, arguments):",
        "    if event == 'import' and arguments[0] == 'peft':",
        "        os.write(1, b'hello from C\\n')",
        "sys.addaudithook(hear)",
    ]
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text("\n".join(lines))
    (folder / "msgspec.py").write_text("raise SystemExit('run')\n")
    it = Training(folder / "job")

    def hear(progress):
        it.told.append(progress)
        it.sessions.update(os.getsid(number) for number in trainers(folder))

    job = Job(tiny_model, samples, Recipe(epochs=3, target=0.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(folder / "site"), prepend=os.pathsep)
        it.adapter = asyncio.run(train_adapter(job, folder / "job", hear))
    return it


def test_an_adapter_comes_of_it_and_each_epoch_is_told(training):
    folder = training.adapter.parent
    assert training.adapter == folder / "adapter"
    assert {it.name for it in training.adapter.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert [(it.epoch, it.epochs) for it in training.told] == [(1, 3), (2, 3), (3, 3)]
    assert all(it.loss > 0 and it.seconds > 0 for it in training.told)
    # The conversation is in there.
    for name in ("job.json", "log"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


def test_no_module_of_the_current_folder_is_run(training):
    assert (training.adapter.parents[1] / "msgspec.py").exists()
    assert len(training.told) == 3


def test_what_libraries_print_is_not_taken_for_progress(training):
    assert [it.epoch for it in training.told] == [1, 2, 3]
    assert "hello from C" in (training.adapter.parent / "log").read_text()


def test_keys_pressed_in_a_terminal_do_not_reach_it(training):
    assert len(training.sessions) == 1
    assert os.getsid(0) not in training.sessions


async def test_a_training_that_is_cancelled_ends_at_once_and_leaves_no_adapter(job, tmp_path):
    began = asyncio.Event()
    training = asyncio.create_task(train_adapter(job(), tmp_path, lambda _: began.set()))
    await asyncio.wait_for(began.wait(), PATIENCE_S)
    assert len(trainers(tmp_path)) == 1
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert trainers(tmp_path) == []
    assert not (tmp_path / "adapter").exists()


def test_a_training_ends_with_the_process_that_began_it(job, tmp_path):
    from msgspec import json

    file = tmp_path / "what.json"
    file.write_bytes(json.encode(job()))
    lines = [
        "import asyncio, sys",
        "from pathlib import Path",
        "from msgspec import json",
        "from mindscore.training.lora.job import Job",
        "from mindscore.training.lora.job import train_adapter",
        "job = json.decode(Path(sys.argv[1]).read_bytes(), type=Job)",
        "say = lambda it: print(it, flush=True)",
        "asyncio.run(train_adapter(job, Path(sys.argv[2]), say))",
    ]
    command = [sys.executable, "-c", "\n".join(lines), str(file), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert "epoch=1" in parent.stdout.readline()
        assert len(trainers(tmp_path)) == 1
        parent.kill()
    began = time.monotonic()
    while trainers(tmp_path):
        assert time.monotonic() - began < PATIENCE_S
        time.sleep(0.02)


async def test_a_process_that_is_killed_is_an_error_that_names_memory(job, tmp_path):
    def kill(_):
        for number in trainers(tmp_path):
            os.kill(number, signal.SIGKILL)

    with pytest.raises(TrainError, match="was killed, as it is when memory runs out"):
        await train_adapter(job(), tmp_path, kill)


@pytest.mark.slow
async def test_a_model_that_is_nowhere_is_named(samples, tmp_path):
    with pytest.raises(TrainError, match=r"the training failed: .*nowhere"):
        await train_adapter(Job(str(tmp_path / "nowhere"), samples), tmp_path)


@pytest.mark.parametrize("name", ["torch", "peft"])
def test_without_what_it_needs_the_error_has_the_command_that_installs_it(name):
    lines = [
        "import importlib.util as util",
        "find = util.find_spec",
        f"util.find_spec = lambda name, *at: None if name == {name!r} else find(name, *at)",
        "from mindscore._util.errors import TrainError",
        "from mindscore.training.lora.job import require_peft",
        "try: require_peft()",
        "except TrainError as error: print(error)",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"needs {name}" in said
    assert "pip install 'mindscore[train]'" in said
