"""What goes wrong in an adapter: told once, in one line, and never the agent's trouble."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Complaints:
    """Says each line once, through one logger."""

    def __init__(self, logger: str) -> None:
        self._logger = logging.getLogger(logger)
        self._said: set[str] = set()

    def say(self, line: str) -> None:
        """Log a warning, unless it was said before."""
        if line not in self._said:
            self._said.add(line)
            self._logger.warning("%s", line)

    @contextmanager
    def guard(self, doing: str) -> Iterator[None]:
        """Around what may fail: the failure is said, and goes no further."""
        try:
            yield
        except Exception as error:
            from mindscore.errors import reason

            self.say(f"{doing} failed: {reason(error)}")
