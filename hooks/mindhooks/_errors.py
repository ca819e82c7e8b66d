"""Exceptions that reach a host or a plugin author, and the log line of a plugin's failure.

MindhooksError
├── UnhandledCommand   no registered plugin took a dispatched command
├── PluginError        a plugin cannot be registered
├── ScorerError        a scorer could not be built, or could not answer
│   ├── ScorerUnavailable  the same call may succeed later
│   └── UnknownScorer      no installed scorer has the name that the settings give
├── SinkError          a training sink could not be built
│   └── UnknownSink        no installed sink has the name that the settings give
└── NotAccepted        a training sink accepted nothing, for certain
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger("mindhooks")

LOOP_HOLD_LIMIT_S = 0.1
"""A plugin that keeps the event loop from turning for longer is logged."""


class MindhooksError(Exception):
    """Root of every error that mindhooks and mindscore raise on purpose."""


class UnhandledCommand(MindhooksError):  # noqa: N818 - the contract names it
    """No registered plugin answered a dispatched command."""


class PluginError(MindhooksError):
    """A plugin breaks the hook contract, or its name is taken."""


class ScorerError(MindhooksError):
    """A scorer could not be built, could not answer, or answered wrongly.

    Attributes:
        arrived: false where it is certain that the prompt reached no model: the call is not counted
            then.
    """

    arrived: bool = True


class ScorerUnavailable(ScorerError):  # noqa: N818 - as UnhandledCommand
    """A scorer's call failed for a reason that may pass, such as a server that is busy or down.

    A scorer raises it when the same call may succeed later. Flows then make the call again, with
    exponential, jittered pauses, until it succeeds or ``server.max_attempts`` or
    ``server.deadline_s`` is reached. Any other exception fails the call at once.

    Attributes:
        retry_after: seconds to pause before the next attempt, in place of the flow's own pause;
            ``None`` where the server did not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnknownScorer(ScorerError):  # noqa: N818 - as UnhandledCommand
    """No installed scorer has the name that ``[server] scorer`` gives."""


class SinkError(MindhooksError):
    """A training sink could not be built."""


class UnknownSink(SinkError):  # noqa: N818 - as UnhandledCommand
    """No installed sink has the name that ``[train] sink`` gives."""


class NotAccepted(MindhooksError):  # noqa: N818 - as UnhandledCommand
    """It is certain that a sink accepted nothing of what it was given; the text says why."""


@dataclass(frozen=True, slots=True)
class PluginSource:
    """The distribution that a plugin comes from; ``None`` for one registered by hand."""

    name: str
    distribution: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        origin = (
            f"{self.distribution} {self.version}" if self.distribution else "registered by hand"
        )
        return f"plugin {self.name} ({origin})"


def log_plugin_error(subject: object, error: BaseException) -> None:
    """Log ``subject`` with the error's type and text in one line; its traceback at DEBUG only."""
    traceback = error if log.isEnabledFor(logging.DEBUG) else None
    log.error("%s: %s", subject, format_error(error), exc_info=traceback)


def format_error(error: BaseException) -> str:
    """Return type and text of an exception in one line, even when its text cannot be had."""
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
def warn_if_slow(subject: object) -> Iterator[None]:
    """Log a warning when the body, a plugin's code, holds up the host's event loop."""
    started = time.perf_counter()
    try:
        yield
    finally:
        held_s = time.perf_counter() - started
        if held_s > LOOP_HOLD_LIMIT_S:
            log.warning(
                "%s: held up the event loop for %.1f s: give its work to a task or a thread",
                subject,
                held_s,
            )
