"""What an attack on a promise found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One row of the table: a promise, how it was attacked, how often, and what broke.

    ``failures`` has a line for each trial that broke the promise; ``figure`` is what was measured
    beside it, if anything.
    """

    promise: str
    attack: str
    trials: int
    failures: list[str] = field(default_factory=list)
    figure: str = ""


Attack = Callable[[int], Finding]
"""Attacks a promise so many times. What it finds is returned, not raised."""

Attacks = Mapping[Attack, int]
"""The attacks of a module, and how many trials ``make faults`` gives each."""
