"""Standard output and standard error of a command."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TextIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from mindhooks import Activity
from mindscore._util.errors import LOGGERS
from mindscore._util.text import LINE, count_of, harmless_json, printable, shortened


def new_console() -> Console:
    """Return a console that prints text as it is, without markup."""
    return Console(highlight=False, markup=False, emoji=False)


def write_json(document: Any, stream: TextIO | None = None) -> None:
    """Write one JSON document, in UTF-8 in any locale, without control characters.

    ``stream``: where to, if not to standard output as it is now.
    """
    out = sys.stdout if stream is None else stream
    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:
        # A file's name that is not UTF-8 holds surrogates: as escapes, they name it still.
        plain = msgspec.to_builtins(document)
        encoded = json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()
    out.flush()
    out.buffer.write(harmless_json(encoded) + b"\n")
    out.flush()


def own_output() -> AbstractContextManager[object]:
    """Redirect to standard error what plugins print meanwhile."""
    return contextlib.redirect_stdout(sys.stderr)


class Screen(logging.Handler):
    """Standard error: activities as a progress bar, and our log as lines."""

    _shown: ClassVar[Screen | None] = None

    def __init__(self, waiting: str | None = None, *, once: bool = False) -> None:
        """Make it; ``waiting`` is the line of progress until the first activity begins.

        ``once``: of log lines of one kind, only the first is shown, and the number of the others.
        """
        super().__init__()
        self._once = once
        self._kinds: Counter[str] = Counter()
        self._waiting = waiting
        self._waiting_task: TaskID | None = None
        self._logged: list[str] = []
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            console=self._console,
            transient=True,
            # Not as rich decides: it takes a file for a terminal where colours are forced.
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Screen:
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)
        if self._waiting is not None:
            self._waiting_task = self._progress.add_task(self._waiting, total=None)
        self._progress.start()
        Screen._shown = self
        return self

    def __exit__(self, *_: object) -> None:
        Screen._shown = None
        self._stop()
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)
        for kind, count in self._kinds.items():
            if count > 1:
                like = re.sub(r"%[sdrg]", "…", kind)
                self.complain(f"{count_of(count - 1, 'more line')} like: {like}")

    @classmethod
    def restore_terminal(cls) -> None:
        """Remove the progress in sight and show the cursor, before the process is left."""
        if cls._shown is not None:
            cls._shown._stop()

    def _stop(self) -> None:
        # rich before 14.3 prints an empty line even where it is disabled.
        if not self._progress.disable:
            self._progress.stop()

    def activity(self, message: str) -> Activity:
        """Return an activity that is shown as one line of progress."""
        return _ProgressLine(self._progress, message, self._end_waiting)

    def _end_waiting(self) -> None:
        if self._waiting_task is not None:
            self._progress.remove_task(self._waiting_task)
            self._waiting_task = None

    def complain(self, message: str) -> None:
        """Print an error in one line."""
        self._console.print(
            Text(f"mindscore: {shortened(message, LINE, LINE // 3)}"), soft_wrap=True
        )

    def fail(self, error: str) -> None:
        """Print why a command failed, unless the log has said it in the same words."""
        if not any(error in line for line in self._logged):
            self.complain(error)

    def errors(self) -> Console:
        """Return the console of standard error."""
        return self._console

    def emit(self, record: logging.LogRecord) -> None:
        if self._once:
            self._kinds[str(record.msg)] += 1
            if self._kinds[str(record.msg)] > 1:
                return
        self._logged.append(record.getMessage())
        # A task's failure is in the run's error, which is printed at the end.
        if not _TASK_FAILED.match(self._logged[-1]):
            self.complain(self._logged[-1])
        if record.exc_info:
            traceback = logging.Formatter().formatException(record.exc_info)
            self._console.print(Text(traceback), soft_wrap=True)


_TASK_FAILED = re.compile(r"task '.*' failed: ")


class _ProgressLine(Activity):
    def __init__(self, progress: Progress, message: str, begun: Callable[[], None]) -> None:
        self._progress = progress
        self._begun = begun
        self._message = message
        self._task: TaskID | None = None

    def __enter__(self) -> _ProgressLine:
        self._begun()
        self._task = self._progress.add_task(printable(self._message), total=None)
        return self

    def update(self, message: str, done: int | None = None, total: int | None = None) -> None:
        if self._task is not None:
            self._progress.update(
                self._task, description=printable(message), completed=done, total=total
            )

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
