"""Standard output: tables for people, one document for programs, and nothing of a plugin's."""

from __future__ import annotations

import contextlib
import sys
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from rich.console import Console

from mindscore.text import harmless_json


def new_console() -> Console:
    """A console that takes text as it is: keys and messages are no markup."""
    return Console(highlight=False, markup=False, emoji=False)


def write_json(document: Any) -> None:
    """Write one JSON document, in UTF-8 whatever the locale says; it does nothing to a terminal."""
    sys.stdout.flush()
    sys.stdout.buffer.write(harmless_json(msgspec.json.encode(document)) + b"\n")
    sys.stdout.flush()


def own_output() -> AbstractContextManager[object]:
    """What plugins print meanwhile goes to standard error."""
    return contextlib.redirect_stdout(sys.stderr)
