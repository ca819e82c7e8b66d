"""What of a run could not be kept: the recorder counts it, the run's statistics say it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from weakref import WeakKeyDictionary

from mindhooks import Registry
from mindscore.errors import reason

Kind = Literal["scores", "candidates"]


class Unkept:
    """Scores, or candidates, of one run that the store did not take.

    ``count`` is how many, ``reason`` why the first was not. One counts from the moment it is to be
    kept until it is: so does one that the store is still busy with when its listener's time is up.
    """

    def __init__(self, kind: Kind) -> None:
        self.count = 0
        self.reason: str | None = None
        self._kind = kind
        self._latest: str | None = None

    @property
    def error(self) -> str | None:
        """What to tell an operator; ``None`` where everything was kept."""
        if not self.count:
            return None
        why = self.reason or "the store took longer than plugins.listener_timeout_s"
        what = self._kind if self.count > 1 else self._kind.removesuffix("s")
        return f"{self.count} {what} could not be kept: {why}"

    def beside(self, error: str | None) -> str | None:
        """``error``, and what could not be kept; ``None`` where there is neither."""
        return "; ".join(filter(None, (error, self.error))) or None

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Around what keeps one. A failure is raised unless the one before had the same reason."""
        self.count += 1
        try:
            yield
        except Exception as error:
            why = reason(error)
            is_news, self._latest = why != self._latest, why
            self.reason = self.reason or why
            if is_news:
                raise
        else:
            self.count -= 1
            self._latest = None


_of_scores: WeakKeyDictionary[Registry, Unkept] = WeakKeyDictionary()
_of_candidates: WeakKeyDictionary[Registry, Unkept] = WeakKeyDictionary()
_OF = {"scores": _of_scores, "candidates": _of_candidates}


def begin(registry: Registry, kind: Kind) -> Unkept:
    """Count anew, for a run that begins."""
    found = _OF[kind][registry] = Unkept(kind)
    return found


def unkept(registry: Registry, kind: Kind) -> Unkept:
    """What of the run that began last, or of a host's own emissions, could not be kept."""
    return _OF[kind].get(registry) or begin(registry, kind)
