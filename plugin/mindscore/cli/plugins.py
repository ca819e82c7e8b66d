"""``mindscore plugins``: what is installed, what is on, what did not load; and a new one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindscore.cli.options import Assignments, ConfigFile, Json
from mindscore.cli.status import DONE
from mindscore.errors import UsageError
from mindscore.text import printable

if TYPE_CHECKING:
    from mindhooks import PluginInfo

app = typer.Typer(
    help="List the installed plugins, and the errors of those that did not load; or start one.",
)


@app.callback(invoke_without_command=True)
def list_(
    context: typer.Context,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    json: Json = False,
) -> int:
    """List the installed plugins, and the errors of those that did not load; or start one."""
    if context.invoked_subcommand is not None:
        if config_file or assignments or json:
            raise UsageError("--config, --set and --json go with the list of plugins only")
        return DONE
    from mindscore.cli.output import own_output, write_json
    from mindscore.cli.screen import Screen
    from mindscore.config_file import load_configuration

    configuration = load_configuration(config_file, assignments or ())
    with Screen(), own_output():
        found = asyncio.run(_load(configuration.tables))
    if json:
        write_json(found)
    else:
        _show(found)
    return DONE


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the distribution, plugin and command.")
    ],
    into: Annotated[
        Path, typer.Option("--into", metavar="FOLDER", help="Make its folder in this one.")
    ] = Path(),
) -> int:
    """Write a plugin that works, with tests: a folder NAME, ready to be installed."""
    from mindscore.cli.new_plugin import NewPlugin

    folder = NewPlugin(name).write(into)
    sys.stdout.write(printable(f"{folder}: its README.md says what is next") + "\n")
    return DONE


async def _load(tables: Mapping[str, Any]) -> list[PluginInfo]:
    from mindhooks import Registry
    from mindhooks.testing import StubMind

    async with Registry(StubMind(), tables) as registry:
        registry.load_entry_points()
        return registry.plugins()


def _show(found: Sequence[PluginInfo]) -> None:
    from rich.table import Table

    from mindscore.cli.output import new_console

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
    for info in found:
        if info.error:
            console.print(printable(f"{info.name}: {info.error}"), soft_wrap=True)
