"""A table of where named memories stand in the conversations of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

from mindscore._util.text import count_of, shortened
from mindscore.conversation.places import Place

KEY_CHARACTERS = 80


def show_places(console: Console, found: Iterable[Mapping[str, Iterable[Place]]]) -> None:
    """Print how often, and in messages of which role, each memory stands in all conversations."""
    times: dict[str, Counter[str]] = {}
    conversations = Counter[str]()
    for by_key in found:
        for key, places in by_key.items():
            counted = Counter[str]()
            for place in places:
                counted[place.role] += place.times
            times.setdefault(key, Counter()).update(counted)
            conversations[key] += bool(counted)
    if not times:
        return
    table = Table(box=None)
    table.add_column("memory", overflow="fold")
    table.add_column("found", justify="right")
    table.add_column("where", overflow="fold")
    for key, roles in times.items():
        where = ", ".join(f"{role} {number:,}" for role, number in roles.most_common())
        if conversations[key] > 1:
            where += f" (of {count_of(conversations[key], 'conversation')})"
        table.add_row(shortened(key, KEY_CHARACTERS), f"{roles.total():,}", where or "nowhere")
    console.print(table)
