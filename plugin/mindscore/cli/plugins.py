"""``mindscore plugins``: what is installed, what is on, what did not load."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from mindhooks import PluginInfo, Registry
from mindhooks.testing import StubMind
from mindscore.cli.output import new_console, own_output, write_json
from mindscore.cli.screen import Screen
from mindscore.config_file import load_configuration
from mindscore.text import printable


def run_plugins(config_file: Path | None, assignments: Sequence[str], json: bool) -> int:
    """Load the plugins as a host would, and list them."""
    configuration = load_configuration(config_file, assignments)
    with Screen(), own_output():
        found = asyncio.run(_load(dict(configuration.tables)))
    if json:
        write_json(found)
        return 0
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
    return 0


async def _load(tables: dict[str, Any]) -> list[PluginInfo]:
    async with Registry(StubMind(), tables) as registry:
        registry.load_entry_points()
        return registry.plugins()
