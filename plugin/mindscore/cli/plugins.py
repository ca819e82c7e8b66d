"""``mindscore plugins``: list the installed plugins, and write a new one."""

from __future__ import annotations

import asyncio
import keyword
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import distributions, entry_points
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindhooks import MindCommand
from mindscore._util.errors import UsageError
from mindscore._util.extensions import OWN
from mindscore._util.text import printable, shortened
from mindscore.cli.interruption import DONE
from mindscore.cli.options import ConfigOptions, Json, RunOptions, takes_options

if TYPE_CHECKING:
    from mindhooks import PluginInfo


LONGEST = 50

FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "plugin.py": "$module/__init__.py",
    "test_plugin.py": "tests/test_plugin.py",
}
"""Files of ``mindscore/templates``, with their paths in the folder of a plugin."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)


class NewPlugin:
    """A plugin to write: ``name`` names its distribution, its entry point and its command.

    Raises:
        UsageError: the name cannot be used; says why.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.module = name.replace("-", "_")
        if reason := self._unfit():
            raise UsageError(f"no plugin can be called {shortened(name, LONGEST)!r}: {reason}")

    def write(self, into: Path) -> Path:
        """Make the plugin's folder in ``into`` and return it.

        Raises:
            UsageError: it exists, or cannot be written; nothing of it is left.
        """
        folder = into.absolute() / self.name
        try:
            folder.mkdir()
        except FileExistsError:
            raise UsageError(f"{folder} is there already; choose another name or --into") from None
        except OSError as error:
            raise UsageError(f"{folder}: cannot be made: {error.strerror or error}") from None
        try:
            self._fill(folder)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                reason = error.strerror or error
                raise UsageError(f"{folder}: cannot be written: {reason}") from None
            raise
        return folder

    def _fill(self, folder: Path) -> None:
        names = {"name": self.name, "module": self.module}
        for source, target in FILES.items():
            template = files("mindscore") / "templates" / f"{source}.template"
            file = folder / Template(target).substitute(names)
            file.parent.mkdir(exist_ok=True)
            text = Template(template.read_text(encoding="utf-8")).substitute(names)
            file.write_text(text, encoding="utf-8")

    def _unfit(self) -> str | None:
        if len(self.name) > LONGEST or not _NAME.fullmatch(self.name):
            return (
                "expected lower-case letters and digits, with single hyphens between them, such "
                f"as tea-leaves, at most {LONGEST} of them"
            )
        if keyword.iskeyword(self.module) or self.module in sys.stdlib_module_names:
            return "Python itself has that name"
        from mindscore.flows.compare import COMMAND

        if self.name in {*MindCommand, COMMAND, "tests"}:
            return "the name has a meaning already"
        return self._taken()

    def _taken(self) -> str | None:
        for found in distributions():
            # Not found.name, which fails where the metadata lack it.
            metadata: Any = found.metadata
            who = metadata.get("Name") or "a distribution without a name"
            if _normal(who) == self.name:
                return f"a distribution called {who} is installed"
            if any(it.group == "mindhooks" and it.name == self.name for it in found.entry_points):
                return f"{who} has a plugin of that name"
        if find_spec(self.module) is not None:
            return f"a module called {self.module} is installed"
        return None


def _normal(name: str) -> str:
    """Return a name as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


app = typer.Typer(
    help="List the installed plugins, or start one.",
)


@app.callback(invoke_without_command=True)
@takes_options
def list_(context: typer.Context, options: ConfigOptions, json: Json = False) -> int:
    """List the installed plugins, with the errors of those that did not load."""
    if context.invoked_subcommand is not None:
        if json or options != ConfigOptions():
            raise UsageError("--config, --set and --json go with the list of plugins only")
        return DONE
    from mindscore.display.screen import Screen, own_output, write_json

    with Screen(), own_output():
        found = asyncio.run(_load(options.load().tables))
    if json:
        write_json(found)
    else:
        _show(found)
    return DONE


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the distribution, plugin and command.")
    ],
    into: Annotated[
        Path, typer.Option("--into", metavar="FOLDER", help="Folder to write it in.")
    ] = Path(),
) -> int:
    """Write a working plugin with tests.

    The folder NAME can be installed as it is.
    """
    folder = NewPlugin(name).write(into)
    sys.stdout.write(printable(f"{folder}: its README.md says what is next") + "\n")
    return DONE


def run_command(options: RunOptions) -> int:
    """Run a command of a plugin's own, print what it emitted, and return the exit status.

    Without ``--json``, the plugin writes to standard output itself.
    """
    from mindscore.cli.interruption import FAILED, run_until_interrupted
    from mindscore.display.documents import document
    from mindscore.display.screen import Screen, new_console, own_output, write_json
    from mindscore.display.tables import show_result
    from mindscore.session.result import Result
    from mindscore.session.session import Session

    configuration, transcript = options.load(), options.read(options.transcript)
    screen = Screen("loading the model …")
    session = Session(transcript, screen.activity)

    async def work() -> Result:
        async with session.open(configuration.tables):
            result = await session.attempt(options.command, ())
            return replace(result, keys=tuple(result.scores))

    with screen, own_output() if options.json else nullcontext():
        result = run_until_interrupted(work, lambda: "")
    if options.json:
        write_json(document(result))
    else:
        show_result(new_console(), result)
    if result.error is None:
        return DONE
    screen.fail(result.error)
    return FAILED


EXTENSIONS = {
    "scorers": "mindhooks.scorers",
    "sinks": "mindhooks.sinks",
    "readers": "mindscore.readers",
    "recognisers": "mindscore.recognisers",
}
"""Kinds of extensions that are no plugins of hooks, with their entry-point groups."""


def _extensions(group: str) -> str:
    """Return the names in a group, those of other distributions with the distribution."""
    own, others = list[str](), list[str]()
    for entry in entry_points(group=group):
        who = entry.dist.name if entry.dist is not None else OWN
        (own if who == OWN else others).append(
            entry.name if who == OWN else f"{entry.name} ({who})"
        )
    return printable(", ".join([*sorted(own), *sorted(others)]))


async def _load(tables: Mapping[str, Any]) -> list[PluginInfo]:
    from mindhooks import Registry
    from mindhooks.testing import StubMind

    async with Registry(StubMind(), tables) as registry:
        registry.load_entry_points()
        return registry.plugins()


def _show(found: Sequence[PluginInfo]) -> None:
    from rich.table import Table

    from mindscore.display.screen import new_console

    table = Table("name", "distribution", "version", "hooks", "state", box=None)
    for info in found:
        state = "failed" if info.error else "on" if info.enabled else "disabled"
        table.add_row(
            *(
                printable(cell or "")
                for cell in (info.name, info.distribution, info.version, ", ".join(info.hooks))
            ),
            state,
        )
    console = new_console()
    console.print(table)
    for kind, group in EXTENSIONS.items():
        console.print(f"{kind}: {_extensions(group)}")
    for info in found:
        if info.error:
            console.print(printable(f"{info.name}: {info.error}"), soft_wrap=True)
