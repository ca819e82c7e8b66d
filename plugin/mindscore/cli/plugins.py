"""``mindscore plugins``: what is installed, what is on, what did not load."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from mindhooks import PluginInfo, Registry
from mindhooks.testing import StubMind
from mindscore.cli.screen import Screen
from mindscore.config_file import load_configuration
from mindscore.text import printable


def run_plugins(config_file: Path | None, assignments: Sequence[str], json: bool) -> int:
    """Load the plugins as a host would, and list them."""
    configuration = load_configuration(config_file, assignments)
    with Screen():
        found = asyncio.run(_load(dict(configuration.tables)))
    if json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return 0
    table = Table("name", "distribution", "version", "hooks", "state", box=None)
    for info in found:
        state = info.error or ("on" if info.enabled else "disabled")
        table.add_row(
            *(
                printable(cell or "")
                for cell in (info.name, info.distribution, info.version, ", ".join(info.hooks))
            ),
            printable(state),
        )
    Console(highlight=False, markup=False).print(table)
    return 0


async def _load(tables: dict[str, Any]) -> list[PluginInfo]:
    async with Registry(StubMind(), tables) as registry:
        registry.load_entry_points()
        return registry.plugins()
