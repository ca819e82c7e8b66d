"""The files of an archive: paths, folders and patterns, one file after the other."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mindscore._util.encodings import ENCODINGS, is_compressed
from mindscore._util.errors import UsageError
from mindscore._util.files import STANDARD_INPUT, unreadable
from mindscore._util.text import count_of, printable
from mindscore.readers.database import SQLITE

NOT_ENTERED = frozenset({"node_modules", "__pycache__", "site-packages", "venv"})
"""Folders of software, beside hidden ones such as ``.git``."""

PEEKED_BYTES = 4096
"""Bytes by which a file of no known format is told from texts and databases."""

MOST_NAMED = 3
"""Names of folders that a line mentions."""

_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A file of an archive; ``is_named``: the user named it, rather than a folder or a pattern."""

    path: Path
    is_named: bool


@dataclass(slots=True)
class PassedOver:
    """Counts of what an archive's folders hold beside conversations."""

    unknown: int = 0
    """Files of no known format."""
    empty: int = 0
    """Files of a known format without a conversation."""
    links: int = 0
    """Links that lead out of their folder."""
    special: int = 0
    """Pipes, sockets and devices."""
    unreadable: list[str] = field(default_factory=list)
    """Why files and folders could not be read."""
    folders: Counter[str] = field(default_factory=Counter)
    """Folders that were not entered, by name."""
    hidden: int = 0
    """Hidden files."""

    def remarks(self) -> list[str]:
        """Return a line for each kind of which there is any, but for what could not be read."""
        lines = []
        if self.unknown:
            lines.append(f"{count_of(self.unknown, 'file')} of no known format")
        if self.empty:
            lines.append(f"{count_of(self.empty, 'file')} without a conversation")
        if self.links:
            lines.append(f"{count_of(self.links, 'link')} out of a folder not followed")
        if self.special:
            lines.append(f"{count_of(self.special, 'pipe, socket or device', _SPECIAL)} not read")
        if self.hidden:
            lines.append(f"{count_of(self.hidden, 'hidden file')} not read")
        if self.folders:
            names = sorted(self.folders)
            named = ", ".join(map(printable, names[:MOST_NAMED])) + ", …" * (
                len(names) > MOST_NAMED
            )
            lines.append(f"{count_of(self.folders.total(), 'folder')} not entered ({named})")
        return lines


_SPECIAL = "pipes, sockets and devices"


class Sources:
    """The files that paths name, each once, in a fixed order.

    A path is a file, a folder, a pattern with ``*``, ``?``, ``[…]`` or ``**``, or ``-``. What a
    folder holds beside files to read is counted in ``passed_over`` as it is met.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.passed_over = PassedOver()

    @property
    def named(self) -> list[ArchiveFile]:
        """The files that the user named, rather than a folder or a pattern."""
        files = (it for it in self._paths if it == STANDARD_INPUT or os.path.lexists(it))
        return [ArchiveFile(it, is_named=True) for it in files if not it.is_dir()]

    def check(self) -> None:
        """Refuse paths that name nothing, before any is read.

        Raises:
            UsageError: a pattern matches nothing, or standard input is named twice.
            TranscriptError: a file is not there.
        """
        if self._paths.count(STANDARD_INPUT) > 1:
            raise UsageError("standard input (-) is named twice")
        for path in self._paths:
            if path == STANDARD_INPUT or os.path.lexists(path):
                continue
            if not _is_pattern(path):
                raise unreadable(path, FileNotFoundError(2, os.strerror(2)))
            if next(_matches(path), None) is None:
                raise UsageError(f"{path}: no file matches")

    def __iter__(self) -> Iterator[ArchiveFile]:
        """Yield the files; the counts of ``passed_over`` begin anew."""
        self.passed_over = PassedOver()
        known: set[tuple[int, int]] = set()
        for file in self._found():
            if file.path == STANDARD_INPUT:
                yield file
                continue
            try:
                found = file.path.stat()
            except OSError as error:
                if file.is_named:
                    raise unreadable(file.path, error) from None
                self._note(file.path, error)
                continue
            place = (found.st_dev, found.st_ino)
            if place in known:
                continue
            known.add(place)
            if file.is_named or self._may_hold(file.path, found):
                yield file

    def _found(self) -> Iterator[ArchiveFile]:
        for path in self._paths:
            if path == STANDARD_INPUT:
                yield ArchiveFile(path, is_named=True)
            elif path.is_dir():
                yield from self._walk(path)
            elif _is_pattern(path) and not os.path.lexists(path):
                for match in sorted(_matches(path)):
                    if match.is_dir():
                        yield from self._walk(match)
                    else:
                        yield ArchiveFile(match, is_named=False)
            else:
                yield ArchiveFile(path, is_named=True)

    def _walk(self, root: Path) -> Iterator[ArchiveFile]:
        """Yield the files of a folder and those below it, in the order of their names."""
        real, waiting = root.resolve(), [root]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as listed:
                    entries = sorted(listed, key=lambda it: it.name)
            except OSError as error:
                self._note(folder, error)
                continue
            inner = []
            for entry in entries:
                path = folder / entry.name
                if entry.is_symlink():
                    # What a link within the folder leads to is found there.
                    self.passed_over.links += not _is_within(path, real)
                elif entry.is_dir():
                    if entry.name.startswith(".") or entry.name in NOT_ENTERED:
                        self.passed_over.folders[entry.name] += 1
                    else:
                        inner.append(path)
                elif entry.name.startswith("."):
                    self.passed_over.hidden += 1
                else:
                    yield ArchiveFile(path, is_named=False)
            waiting += reversed(inner)

    def _may_hold(self, path: Path, found: os.stat_result) -> bool:
        """Return whether a file may hold conversations; read no more of it than its beginning."""
        if not stat.S_ISREG(found.st_mode):
            self.passed_over.special += 1
            return False
        try:
            with path.open("rb") as file:
                begin = file.read(PEEKED_BYTES)
        except OSError as error:
            self._note(path, error)
            return False
        if begin.strip() and _may_be_text(begin):
            return True
        self.passed_over.unknown += 1
        return False

    def _note(self, path: Path, error: OSError) -> None:
        self.passed_over.unreadable.append(str(unreadable(path, error)))


def _is_pattern(path: Path) -> bool:
    return glob.has_magic(str(path))


def _matches(pattern: Path) -> Iterator[Path]:
    # Path.glob takes no absolute pattern, and finds hidden files too.
    return map(Path, glob.iglob(str(pattern.expanduser()), recursive=True))  # noqa: PTH207


def _is_within(link: Path, root: Path) -> bool:
    try:
        return link.resolve().is_relative_to(root)
    # Of a link to itself.
    except (OSError, RuntimeError):
        return True


def _may_be_text(begin: bytes) -> bool:
    """Return false of what holds NUL bytes, and is no database, archive or text in UTF-16."""
    if begin.startswith((SQLITE, _ZIP, *ENCODINGS)) or is_compressed(begin):
        return True
    # A crash leaves NUL bytes in a text, too, but not at its beginning.
    return b"\0" not in begin[:64]
