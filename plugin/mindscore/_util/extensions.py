"""Load the objects that distributions bring through an entry-point group: ours first, by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mindscore._util.errors import format_error
from mindscore._util.text import one_line

OWN = "mindscore"
"""The distribution whose extensions are loaded first."""

NAME_CHARACTERS = 60
"""Longest name of an extension that a message shows."""


@dataclass(frozen=True, slots=True)
class Extension:
    """One entry point of a group: the object that it names, or the reason why it is not loaded."""

    name: str
    distribution: str | None
    loaded: Any
    error: str | None


def load_extensions(group: str) -> Iterator[Extension]:
    """Yield every extension of ``group``: our own first, then by distribution and name.

    A class or function is called without arguments to make the object; anything else is taken as
    it is. One that fails, or whose name an earlier one has, is yielded with its ``error``.
    """
    found = [
        (entry.dist.name if entry.dist is not None else None, entry)
        for entry in entry_points(group=group)
    ]
    found.sort(key=lambda it: (it[0] != OWN, it[0] or "", it[1].name))
    names: set[str] = set()
    for distribution, entry in found:
        loaded, error = None, None
        if entry.name in names:
            error = "another one has this name"
        else:
            loaded, error = _load(entry)
        names.add(entry.name)
        yield Extension(one_line(entry.name, NAME_CHARACTERS), distribution, loaded, error)


def _load(entry: EntryPoint) -> tuple[Any, str | None]:
    try:
        target = entry.load()
        made = inspect.isclass(target) or inspect.isroutine(target)
        return target() if made else target, None
    except KeyboardInterrupt:
        raise
    # An extension is anybody's code.
    except BaseException as error:
        return None, format_error(error)
