"""Load what distributions bring through an entry-point group: ours first, then by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from mindscore._util.errors import format_error
from mindscore._util.text import one_line

OWN = "mindscore"
"""The distribution whose extensions are loaded first."""

NAME = 60
"""Characters of an extension's name that a message shows."""


@dataclass(frozen=True, slots=True)
class Extension:
    """One entry point of a group: the object that it names, or why that could not be loaded.

    A class or function is called without arguments to make the object; anything else is taken as
    it is.
    """

    name: str
    distribution: str | None
    version: str | None
    loaded: Any
    error: str | None


def load_extensions(group: str) -> Iterator[Extension]:
    """Load every extension of ``group``; one that fails is yielded with its ``error``."""
    found = [
        (entry.dist.name if entry.dist is not None else None, entry)
        for entry in entry_points(group=group)
    ]
    found.sort(key=lambda it: (it[0] != OWN, it[0] or "", it[1].name))
    for distribution, entry in found:
        name = one_line(entry.name, NAME)
        version = entry.dist.version if entry.dist is not None else None
        loaded, error = None, None
        try:
            target = entry.load()
            made = inspect.isclass(target) or inspect.isroutine(target)
            loaded = target() if made else target
        except KeyboardInterrupt:
            raise
        # An extension is anybody's code.
        except BaseException as failure:
            error = format_error(failure)
        yield Extension(name, distribution, version, loaded, error)
