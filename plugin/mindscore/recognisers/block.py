"""A stretch of a message in which a host printed memories."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

Render = Callable[[frozenset[str]], str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One memory as it stands in the message; the same key always means the same memory."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """The half-open span ``start`` to ``end`` of a message's text, and the memories in it.

    ``render(skipped)`` is the text that the host would have printed in its place without the
    entries whose keys are skipped, separators and headers included; of no skipped key, it is the
    span's own text.
    """

    start: int
    end: int
    entries: tuple[Entry, ...]
    render: Render


@dataclass(frozen=True, slots=True)
class Unread:
    """A span that looks like memories and does not parse: it stays plain text, and is said to."""

    start: int
    end: int
    why: str


def hashed(text: str) -> str:
    """Twelve hexadecimal digits that tell one text from another, for keys of nameless entries."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
