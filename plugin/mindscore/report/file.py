"""The file that a report is written to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mindscore._util.errors import UsageError
from mindscore._util.files import make_file


class ReportFile:
    """Written whole or not at all, and its owner's alone: it holds the conversation."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def check(self, others: Mapping[str, Path]) -> None:
        """Refuse, before anything is scored, what could not be written, or must not be.

        ``others`` are the files that a run reads and writes, by what they are.

        Raises:
            UsageError: says why.
        """
        folder = self._file.parent
        if not folder.is_dir():
            raise UsageError(f"--html {self._file}: there is no folder {folder}")
        if self._file.exists():
            if not self._file.is_file():
                raise UsageError(f"--html {self._file}: it is no regular file")
            for what, other in others.items():
                if other.exists() and self._file.samefile(other):
                    raise UsageError(f"--html {self._file}: that is the {what}")
        unfinished = self._unfinished()
        try:
            make_file(unfinished)
            unfinished.unlink()
        except OSError as error:
            raise self._not_written(error) from None

    def write(self, page: str) -> None:
        """Write ``page``.

        Raises:
            UsageError: it cannot be written; what was there before is there still.
        """
        unfinished = self._unfinished()
        try:
            make_file(unfinished)
            # What JSON may hold and UTF-8 has not: half a surrogate pair.
            unfinished.write_bytes(page.encode(errors="replace"))
            unfinished.replace(self._file)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            raise self._not_written(error) from None

    def _unfinished(self) -> Path:
        return self._file.with_name(f".{self._file.name}.{os.getpid()}")

    def _not_written(self, error: OSError) -> UsageError:
        return UsageError(f"--html {self._file}: cannot be written: {error.strerror or error}")
