"""The file that a report is written to."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from mindscore._util.errors import UsageError
from mindscore._util.files import write_files


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
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise self._not_written(error) from None

    def write(self, page: str) -> None:
        """Write ``page``.

        Raises:
            UsageError: it cannot be written; what was there before is there still.
        """
        try:
            # What JSON may hold and UTF-8 has not: half a surrogate pair.
            write_files({self._file: page.encode(errors="replace")})
        except OSError as error:
            raise self._not_written(error) from None

    def _not_written(self, error: OSError) -> UsageError:
        return UsageError(f"--html {self._file}: cannot be written: {error.strerror or error}")
