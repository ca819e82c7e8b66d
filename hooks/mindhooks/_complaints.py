"""One line about whatever a plugin did wrong, through the logger ``mindhooks``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger("mindhooks")

SLOW_S = 0.1
"""What holds up the event loop for longer is complained of."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a plugin comes from; ``distribution`` is ``None`` for one registered by hand."""

    name: str
    distribution: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        where = f"{self.distribution} {self.version}" if self.distribution else "registered by hand"
        return f"plugin {self.name} ({where})"


def complain(what: str, error: BaseException) -> None:
    """Log ``what`` with the error's type and text, in one line; its traceback at DEBUG only."""
    traceback = error if log.isEnabledFor(logging.DEBUG) else None
    log.error("%s: %s", what, describe(error), exc_info=traceback)


def describe(error: BaseException) -> str:
    """Type and text of an exception in one line, even when its text cannot be had."""
    try:
        text = " ".join(str(error).split())
    except KeyboardInterrupt:
        raise
    # The text is a plugin's code as well.
    except BaseException as broken:
        text = f"(its text raised {type(broken).__name__})"
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


@contextmanager
def on_loops_thread(what: str) -> Iterator[None]:
    """Complain when the body, which is a plugin's code, holds up the host's event loop."""
    started = time.perf_counter()
    try:
        yield
    finally:
        held_s = time.perf_counter() - started
        if held_s > SLOW_S:
            log.warning(
                "%s: held up the event loop for %.1f s: give its work to a task or a thread",
                what,
                held_s,
            )
