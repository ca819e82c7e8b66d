"""Errors of mindscore's own, all under ``MindhooksError``.

MindhooksError
├── UsageError       the command line
├── ConfigError      a key, type or value in the configuration
├── TranscriptError  a transcript, or a file of conversations
├── StoreError       the store cannot be opened, read or written
└── TrainError       nothing was trained: not sent, not accepted, or it failed
"""

from mindhooks import MindhooksError
from mindscore._util.text import printable


class UsageError(MindhooksError):
    """The command line asks for something that cannot be done."""


class ConfigError(MindhooksError):
    """The configuration is wrong; the text names the file, the key and what was expected."""


class TranscriptError(MindhooksError):
    """A transcript is not valid; the text names the file, the place and the reason."""


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
