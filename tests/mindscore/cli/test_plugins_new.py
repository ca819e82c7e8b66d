"""``mindscore plugins new``: a plugin that works, in a folder of its own."""

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

NAME = "tea-leaves"
FILES = {"pyproject.toml", "README.md", "tea_leaves/__init__.py", "tests/test_plugin.py"}


def files(folder):
    return {str(it.relative_to(folder)) for it in folder.rglob("*") if it.is_file()}


@pytest.fixture
def made(cli, tmp_path):
    """The folder of a plugin that was made."""
    ran = cli("plugins", "new", NAME, "--into", tmp_path)
    assert (ran.status, ran.err) == (0, "")
    return tmp_path / NAME


def test_it_writes_a_distribution_with_a_package_and_its_tests(made):
    assert files(made) == FILES
    project = tomllib.loads((made / "pyproject.toml").read_text())["project"]
    assert project["name"] == NAME
    assert project["entry-points"] == {"mindhooks": {NAME: "tea_leaves:Plugin"}}
    assert project["dependencies"] == ["mindscore"]
    assert not any("$" in (made / name).read_text() for name in FILES)


def test_it_says_where_it_is(cli, tmp_path):
    ran = cli("plugins", "new", NAME, "--into", tmp_path)
    assert ran.out == f"{tmp_path / NAME}: its README.md says what is next\n"


def test_without_a_folder_it_is_made_in_the_current_one(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("plugins", "new", NAME).status == 0
    assert files(tmp_path / NAME) == FILES


def test_it_passes_its_own_tests_and_runs_once_installed(made, tmp_path, command, talk):
    pytest.importorskip("hatchling", reason="it builds the plugin")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([*pip, *options, str(made)], check=True)
    environment = {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    tested = subprocess.run(
        # The template's tests need no pytest-asyncio, which warns where it is not configured.
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
            "-ra",
        ],
        cwd=made,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert " passed" in tested.stdout
    assert not any(word in tested.stdout for word in ("skipped", "warning", "xfail"))

    ran = command("plugins", "--json", **environment)
    [info] = [info for info in ran.document if info["name"] == NAME]
    assert (info["distribution"], info["version"], info["error"]) == (NAME, "0.1.0", None)
    assert sorted(info["hooks"]) == ["on_score", "on_trigger"]

    table = ["--set", f"plugins.settings.{NAME}.floor=high"]
    ran = command("score", talk, "--json", "--set", "server.scorer=toy", *table, **environment)
    assert ran.status == 0
    assert ran.error.startswith(f"plugin {NAME} (tea-leaves 0.1.0) was skipped: ValueError: ")


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed")
def test_what_it_writes_is_as_ruff_wants_it(made):
    for check in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "--isolated", "--no-cache"],
            cwd=made,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "/tmp/x", "a\\b", "-x", "x-", "a--b", "1a", "Tea", "tea_x"),
        *("a.b", "té", "a b", "a\n", "$name", "x" * 51, "[x]", "\x1b[2J", "tea\u202e"),
    ],
)
def test_a_name_that_is_none_of_a_distribution_is_refused(name, cli, tmp_path):
    folder = tmp_path / "into"
    folder.mkdir()
    ran = cli("plugins", "new", "--into", folder, "--", name)
    assert (ran.status, ran.out) == (2, "")
    assert "such as tea-leaves" in ran.error
    assert ran.error.isprintable()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("memory-scoring", "mindscore has a plugin of that name"),
        ("score-recorder", "mindscore has a plugin of that name"),
        ("mindscore", "a distribution called mindscore is installed"),
        ("mindhooks", "a module called mindhooks is installed"),
        ("sqlalchemy", "a distribution called SQLAlchemy is installed"),
        ("rich", "a distribution called rich is installed"),
        ("score", "has a meaning already"),
        ("score-full", "has a meaning already"),
        ("tests", "has a meaning already"),
        ("json", "Python itself"),
        ("class", "Python itself"),
    ],
)
def test_a_name_that_is_taken_is_refused(name, said, cli, tmp_path):
    ran = cli("plugins", "new", name, "--into", tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert ran.error.startswith(f"no plugin can be called {name!r}: ")
    assert said in ran.error
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(("name", "who"), [("loud", "acme has"), ("acme", "called acme")])
def test_the_names_of_other_plugins_are_taken_too(name, who, command, install, tmp_path):
    environment = install("raise SystemExit(7)", "loud = acme_loud:Loud")
    ran = command("plugins", "new", name, "--into", tmp_path, **environment)
    assert (ran.status, ran.out) == (2, "")
    assert who in ran.error


def test_what_is_there_already_is_left_alone(cli, made):
    kept = {name: (made / name).read_text() for name in FILES}
    (made / "README.md").write_text("mine")
    ran = cli("plugins", "new", NAME, "--into", made.parent)
    assert (ran.status, ran.out) == (2, "")
    assert ran.error.startswith(f"{made} is there already")
    assert {name: (made / name).read_text() for name in FILES} == {**kept, "README.md": "mine"}


@pytest.mark.parametrize("kind", ["empty folder", "file", "dangling link", "link to a folder"])
def test_nothing_is_written_over_or_through_what_is_there(kind, cli, tmp_path):
    target, elsewhere = tmp_path / NAME, tmp_path / "elsewhere"
    if kind == "empty folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to(elsewhere)
        if kind == "link to a folder":
            elsewhere.mkdir()
    ran = cli("plugins", "new", NAME, "--into", tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert "is there already" in ran.error
    assert not elsewhere.exists() or list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("into", ["missing", "file"])
def test_a_folder_that_is_none_is_refused(into, cli, tmp_path):
    (tmp_path / "file").write_text("")
    ran = cli("plugins", "new", NAME, "--into", tmp_path / into)
    assert (ran.status, ran.out) == (2, "")
    assert ran.error.startswith(f"{tmp_path / into / NAME}: cannot be made: ")


def test_of_a_plugin_that_cannot_be_written_nothing_is_left(tmp_path):
    # No file may be longer than a kilobyte, and some are.
    script = 'ulimit -f 1; exec "$@"'
    command = [str(Path(sys.executable).with_name("mindscore")), "plugins", "new", NAME]
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command, "--into", str(tmp_path)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"mindscore: {tmp_path / NAME}: cannot be written: ")
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("options", [["--json"], ["--set", "server.scorer=toy"]])
def test_the_lists_options_do_not_go_with_a_new_plugin(options, cli, tmp_path):
    ran = cli("plugins", *options, "new", NAME, "--into", tmp_path)
    assert (ran.status, ran.out) == (2, "")
    assert "--json" in ran.error
    assert not (tmp_path / NAME).exists()


def test_a_subcommand_that_is_none_is_refused(cli):
    ran = cli("plugins", "nwe", NAME)
    assert (ran.status, ran.out) == (2, "")
    assert "nwe" in ran.error
