"""One line about whatever a plugin did wrong, through the logger ``mindhooks``."""

from __future__ import annotations

import logging
from dataclasses import dataclass

log = logging.getLogger("mindhooks")


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
