"""Errors of mindscore's own, all under ``MindhooksError``.

MindhooksError
├── UsageError       the command line
├── ConfigError      a key, type or value in the configuration
├── TranscriptError  a transcript, or a file of conversations
├── StoreError       the store cannot be opened, read or written
└── TrainError       nothing was trained: not sent, not accepted, or it failed
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mindhooks import MindhooksError
from mindscore._util.text import printable

LOGGERS = ("mindhooks", "mindscore")
"""Names of the loggers of both packages."""


class UsageError(MindhooksError):
    """The command line asks for something that cannot be done."""


class ConfigError(MindhooksError):
    """The configuration is wrong; the text names the file, the key and what was expected."""


class TranscriptError(MindhooksError):
    """A transcript is not valid; the text names the file, the place and the reason."""


class UnknownFormatError(TranscriptError):
    """A file is of no format that a reader knows."""


class StoreError(MindhooksError):
    """The store cannot be opened, read or written; the text says where and why."""


class TrainError(MindhooksError):
    """Nothing was sent to the trainer, it did not accept it, or the training failed."""


def format_error(error: BaseException) -> str:
    """Return the text of ``error`` for an operator, with its type if it is not our own."""
    if isinstance(error, MindhooksError):
        return printable(str(error))
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


LOGGED_LINES = 1_000
"""Lines that an ``ErrorLog`` remembers."""


class ErrorLog:
    """A logger that logs each line once."""

    def __init__(self, logger: str) -> None:
        self._logger = logging.getLogger(logger)
        self._logged: dict[str, None] = {}

    def warn(self, line: str) -> None:
        """Log a warning, unless it was logged before."""
        if line not in self._logged:
            if len(self._logged) >= LOGGED_LINES:
                self._logged.clear()
            self._logged[line] = None
            self._logger.warning("%s", line)

    @contextmanager
    def catch(self, doing: str, unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Log an exception of the block instead of raising it; not even that if ``unless()``."""
        try:
            yield
        except Exception as error:
            if not unless():
                self.warn(f"{doing}: {format_error(error)}")
