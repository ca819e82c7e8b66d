"""The conversation of a file that is asked for, so that no other is read in vain."""

from __future__ import annotations

from dataclasses import dataclass

NUMBER_DIGITS = 10
"""Digits that no number of conversations has."""


@dataclass(slots=True)
class Selected:
    """A conversation's name, or number from 1; without a name, all of them."""

    name: str | None = None

    @property
    def number(self) -> int:
        """The number that the name may be, else 0."""
        name = self.name or ""
        return int(name) if name.isdecimal() and len(name) < NUMBER_DIGITS else 0

    def may_be(self, number: int, name: str) -> bool:
        """Return true if it may be conversation ``number``, whose own name is ``name``.

        Those before a number are counted, and so have to be read.
        """
        return self.name is None or number <= self.number or name == self.name
