"""Choose the memories whose prompts fit in a number of tokens."""

from __future__ import annotations

from collections.abc import Mapping

from mindhooks import Context
from mindscore.measure.memories import Memory, responses_after_change, skip_none, skip_only
from mindscore.measure.prompts import prompt_for


class Budget:
    """Takes memories while the prompts that they need hold no more than ``limit`` tokens.

    The baseline of a window counts once, with its ``repeats``. It is an upper bound: prompts that
    turn out to be cached cost nothing. With ``limit`` 0 there is none.
    """

    def __init__(
        self, context: Context, windows: Mapping[Memory, range], limit: int, repeats: int
    ) -> None:
        self._context = context
        self._windows = windows
        self._limit = limit
        self._baselines_per_window = 1 + repeats
        self._spent = 0
        self._judged: dict[range, set[str]] = {}

    def takes(self, memory: Memory) -> bool:
        """Return whether ``memory`` still fits, and count it if so."""
        context, window, skip = self._context, self._windows[memory], skip_only(memory.key)
        before = self._judged.get(window, set())
        asked = responses_after_change(context, window, skip)
        if self._limit:
            longer = self._length(window, before | asked) - self._length(window, before)
            without = len(prompt_for(context, window, skip, asked).tokens)
            cost = self._baselines_per_window * longer + without
            if self._spent + cost > self._limit:
                return False
            self._spent += cost
        self._judged[window] = before | asked
        return True

    def judged(self, window: range) -> set[str]:
        """Return the responses of ``window`` that judge any memory taken."""
        return self._judged[window]

    def _length(self, window: range, asked: set[str]) -> int:
        return len(prompt_for(self._context, window, skip_none, asked).tokens)
