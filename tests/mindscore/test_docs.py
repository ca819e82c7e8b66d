"""Every page of the documentation does what it says.

A ``console`` block runs in a shell, one for each page, and prints what it shows; a ``python`` block
runs with warnings as errors, and prints the ``text`` block after it. ``…`` stands for any text, on
a line of its own for any lines. The word ``model`` after the language: with the real model on the
bundled conversation; ``skip``: not run; ``interrupt``: Ctrl-C after the first line; a file's name:
that file is written first. What a ``pyproject.toml`` describes is installed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import msgspec
import pytest
import typer

import mindhooks
from mindscore.cli.app import app
from mindscore.config.settings import (
    CompareScoringOptions,
    MemoryScoringOptions,
    parse_settings,
)

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "plugin" / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md")])
DEMO = ROOT / "plugin" / "mindscore" / "demo" / "conversation.jsonl"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
PYTHONPATH = list(filter(None, [os.environ.get("PYTHONPATH")]))
END = "@@ the command has ended"

VOLATILE = [
    (r"\d+\.\d+ (ms|s)\b", r"0.0 \1"),
    (r"\"seconds\":[\d.e-]+", '"seconds":0'),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\+00:00)?", "DATE"),
    (r"\b[0-9a-f]{32}\b", "ID"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"token=\S+", "token=…"),
]
"""What differs from run to run."""

# Of the examples that use a client which is not installed.
NO_CLIENT = (
    'import sys, types; sys.modules["openai"] = types.SimpleNamespace(OpenAI=lambda: None)\n'
)


@dataclass(frozen=True)
class Block:
    kind: str
    words: tuple[str, ...]
    body: str
    shown: str
    """The ``text`` block right after it."""


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = list(FENCE.finditer(text))
    made = []
    for here, following in zip_longest(found, found[1:]):
        near = following is not None and not text[here.end() : following.start()].strip()
        shown = following[3] if near and following[1] == "text" else ""
        made.append(Block(here[1], tuple(here[2].split()), here[3], shown))
    return made


def commands(body: str) -> list[tuple[str, list[str]]]:
    """Each command of a console block, with the lines that it shows."""
    found: list[tuple[str, list[str]]] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif not found[-1][1] and found[-1][0].endswith("\\"):
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        else:
            found[-1][1].append(line)
    return found


def same(shown: list[str], printed: list[str]) -> bool:
    expected = ""
    for line in map(normalised, shown):
        any_text = ".*".join(map(re.escape, line.split("…"))) + r"\n"
        expected += r"(?:.*\n)*?" if line == "…" else any_text
    return re.fullmatch(expected, "".join(f"{normalised(it)}\n" for it in printed)) is not None


def normalised(line: str) -> str:
    line = line.rstrip()
    for pattern, by in VOLATILE:
        line = re.sub(pattern, by, line)
    return line


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A new user's folder, which holds a conversation."""
    for name in [
        it for it in os.environ if it.startswith(("MINDSCORE", "XDG_")) or it == "COLUMNS"
    ]:
        if name != "XDG_CACHE_HOME":
            monkeypatch.delenv(name)
    monkeypatch.setenv(
        "XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    )
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    [native] = [it.body for it in blocks(DOCS / "formats.md") if "conversation.jsonl" in it.words]
    (folder / "conversation.jsonl").write_text(native)
    # Where ``write`` installs.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *PYTHONPATH]))
    return folder


def write(block: Block, home: Path) -> None:
    """Write the files that a block is; one that is a project is installed."""
    for name in (it for it in block.words if "." in it):
        (home / name).write_text(block.body)
        if name == "pyproject.toml":
            project = tomllib.loads(block.body)["project"]
            info = home / f"{project['name']}-{project['version']}.dist-info"
            info.mkdir()
            info.joinpath("METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
            )
            groups = project["entry-points"].items()
            info.joinpath("entry_points.txt").write_text(
                "".join(
                    f"[{group}]\n" + "".join(f"{name} = {it}\n" for name, it in entries.items())
                    for group, entries in groups
                )
            )


class Shell:
    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            process_group=0,
            # Ignored by whatever is started in the background, as this may be.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def __enter__(self) -> Shell:
        # It outlives the command that it has interrupted.
        self.run("trap : INT", interrupt=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, command: str, *, interrupt: bool) -> list[str]:
        self._process.stdin.write(f"{command}\necho '{END}'\n")
        self._process.stdin.flush()
        printed: list[str] = []
        while (line := self._process.stdout.readline().rstrip("\n")) != END:
            printed.append(line)
            if interrupt and len(printed) == 1:
                os.killpg(self._process.pid, signal.SIGINT)
        return printed


def walk_through(page: Path, home: Path, *, model: bool) -> None:
    if model:
        (home / "conversation.jsonl").write_text(DEMO.read_text())
    with Shell(home) as shell:
        for block in blocks(page):
            write(block, home)
            if (
                block.kind != "console"
                or "skip" in block.words
                or model != ("model" in block.words)
            ):
                continue
            for command, shown in commands(block.body):
                printed = shell.run(command, interrupt="interrupt" in block.words)
                assert same(shown, printed), "\n".join([f"$ {command}", *printed])


@pytest.mark.parametrize("page", PAGES, ids=lambda it: it.stem)
def test_what_a_page_shows_of_a_terminal_is_what_is_printed(page, home):
    walk_through(page, home, model=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.model
@pytest.mark.parametrize(
    "page",
    [it for it in PAGES if any("model" in block.words for block in blocks(it))],
    ids=lambda it: it.stem,
)
def test_what_a_page_shows_of_the_real_model_is_what_it_says(page, home):
    walk_through(page, home, model=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda it: it.stem)
def test_a_page_s_python_runs_and_its_data_parse(page, home):
    for block in blocks(page):
        write(block, home)
        if block.kind == "toml":
            tomllib.loads(block.body)
        elif block.kind in ("json", "jsonl"):
            for part in block.body.splitlines() if block.kind == "jsonl" else [block.body]:
                json.loads(part)
        elif block.kind == "python":
            compile(block.body, page.name, "exec")
            if "skip" in block.words:
                continue
            code = NO_CLIENT + block.body if "from openai" in block.body else block.body
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", code],
                cwd=home, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            printed = (done.stdout + done.stderr).splitlines()
            assert same(block.shown.splitlines(), printed), (block.body, printed)


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / "hooks" / "docs").glob("*.md")], ids=str)
def test_every_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda it: it.stem)
def test_an_example_runs_and_says_something(file, home):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file)],
        cwd=home, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_configuration_page_states_every_key_and_its_default():
    page = (DOCS / "configuration.md").read_text()
    rows = re.findall(r"^\| `(\w+\.[\w.]+)` \| (?:`(.*?)`)? \| \S", page, flags=re.MULTILINE)
    stated = {key: tomllib.loads(f"it = {value}")["it"] for key, value in rows if value}
    settings = parse_settings({})
    actual = {
        f"{table}.{key}": getattr(getattr(settings, table), key)
        for table in settings.__struct_fields__
        for key in getattr(settings, table).__struct_fields__
    }
    del actual["plugins.settings"]
    assert stated == actual
    own = re.findall(r"^\| `(\w+)` \| `(.*?)` \| \S", page, flags=re.MULTILINE)
    for options in (MemoryScoringOptions(), CompareScoringOptions()):
        defaults = msgspec.to_builtins(options)
        listed = {key: tomllib.loads(f"it = {it}")["it"] for key, it in own if key in defaults}
        assert listed == defaults


def test_the_command_page_names_every_command_and_option():
    def walk(command, name=()):
        within = getattr(command, "commands", {})
        if name and (not within or command.invoke_without_command):
            yield " ".join(name), command
        for key, sub in within.items():
            yield from walk(sub, (*name, key))

    page = (DOCS / "commands.md").read_text()
    sections = dict(re.findall(r"^## ([\w ]+)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    found = dict(walk(typer.main.get_command(app)))
    assert found.keys() <= sections.keys()
    for name, command in found.items():
        rows = "".join(re.findall(r"^\| (.*?) \|", sections[name], flags=re.MULTILINE))
        options = chain.from_iterable((*it.opts, *it.secondary_opts) for it in command.params)
        assert set(re.findall(r"--[\w-]+", rows)) == {
            it for it in options if it.startswith("--")
        } - {"--help"}, name


def test_the_api_page_names_all_that_the_contract_exports():
    page = (DOCS / "python-api.md").read_text()
    [section] = re.findall(r"^## mindhooks\n(.*?)(?=^## |\Z)", page, flags=re.DOTALL | re.MULTILINE)
    assert {it for it in re.findall(r"`(\w+)`", section) if hasattr(mindhooks, it)} == set(
        mindhooks.__all__
    )
