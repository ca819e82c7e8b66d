"""Disks of a few kilobytes, full or read-only, where this machine lets us mount them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = 4096


class NoDiskError(Exception):
    """This machine does not let us mount a disk."""


class Disk:
    """A file system in memory, of ``pages`` pages of 4 KiB, at ``folder``."""

    def __init__(self, folder: Path, pages: int) -> None:
        self.folder = folder
        self._mount("-t", "tmpfs", "-o", f"size={pages * PAGE},mode=0700", "tmpfs")

    def fill(self, free_pages: int) -> None:
        """Leave so many pages free, with a file that takes the others."""
        ballast = self.folder / "ballast"
        ballast.unlink(missing_ok=True)
        free = shutil.disk_usage(self.folder).free
        ballast.write_bytes(bytes(max(0, free - free_pages * PAGE)))

    def lock(self) -> None:
        """Make it read-only."""
        self._mount("-o", "remount,ro")

    def _mount(self, *arguments: str) -> None:
        try:
            ran = subprocess.run(
                ["mount", *arguments, self.folder], capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise NoDiskError(str(error)) from None
        if ran.returncode:
            raise NoDiskError(" ".join(ran.stderr.split()))


@contextmanager
def small_disk(pages: int) -> Iterator[Disk]:
    """A disk that is gone at the end.

    Raises:
        NoDiskError: this machine does not let us mount one.
    """
    folder = Path(tempfile.mkdtemp(prefix="mindscore-disk-"))
    try:
        disk = Disk(folder, pages)
        try:
            yield disk
        finally:
            subprocess.run(["umount", folder], check=True)
    finally:
        folder.rmdir()
