"""The folder of a pass with Ray: conversations that wait, Ray's checkpoint, and findings."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mindscore._util.errors import UsageError
from mindscore._util.files import make_folder
from mindscore.archive.ray_rows import Finding, Waiting, as_rows, as_table
from mindscore.store.export import import_pyarrow

FILE_ROWS = 256
"""Conversations of one file of those that wait: what the driver holds in memory at a time."""


class RayFolder:
    """A folder that the driver and all workers have: a path, or a URI that pyarrow can open.

    ``waiting`` has the conversations, ``checkpoint`` the ids of those that are done, and ``found``
    the findings, each a URI or a path.

    Raises:
        UsageError: it cannot be opened; or, in any use, read or written.
    """

    def __init__(self, address: str) -> None:
        pyarrow, self._parquet = import_pyarrow()
        self._numbers = itertools.count()
        from pyarrow import fs

        self._select, self._types = fs.FileSelector, fs.FileType
        if "://" not in address:
            folder = Path(address).expanduser()
            address = str(folder)
            try:
                make_folder(folder)
            except OSError as error:
                raise UsageError(f"{folder}: cannot be made: {error.strerror or error}") from None
        try:
            self._files, self._root = fs.FileSystem.from_uri(address)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise UsageError(f"ray.folder: {address} cannot be opened: {error}") from None
        self.waiting, self.checkpoint, self.found = (
            f"{address}/{name}" for name in ("waiting", "checkpoint", "found")
        )

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def begin(self) -> Counter[str]:
        """Remove what waited for an earlier command, and return by row how many attempts failed."""
        self._remove("waiting")
        for name in ("waiting", "found"):
            self._files.create_dir(self._path(name))
        failed = Counter[str]()
        for table in self.tables("found", ["id", "done"]):
            for row in table.to_pylist():
                if row["done"]["error"] is not None:
                    failed[row["id"].partition("~")[0]] += 1
        return failed

    def write(self, rows: Sequence[Waiting]) -> None:
        """Write conversations that wait to one more file."""
        path = self._path(f"waiting/{next(self._numbers):06}.parquet")
        table = as_table(Waiting, rows)
        self._parquet.write_table(table, path, filesystem=self._files, compression="zstd")

    def findings(self) -> Iterator[Finding]:
        """Yield what was found, by this command and by earlier ones that were ended."""
        for table in self.tables("found"):
            yield from as_rows(Finding, table)

    def tables(self, name: str, columns: list[str] | None = None) -> Iterator[Any]:
        """Yield what the files of one of the three folders hold, in their order."""
        pyarrow, _ = import_pyarrow()
        select = self._select(self._path(name), allow_not_found=True)
        for it in sorted(self._files.get_file_info(select), key=lambda it: it.path):
            if it.type != self._types.File:
                continue
            try:
                yield self._parquet.read_table(it.path, columns=columns, filesystem=self._files)
            except pyarrow.ArrowInvalid:
                # Cut off with its worker: Ray removes it, and the conversation is not done.
                continue

    def clear(self) -> None:
        """Remove everything: the store has it.

        First the checkpoint: without it, nothing that is done counts as done elsewhere.
        """
        for name in ("checkpoint", "found", "waiting"):
            self._remove(name)

    def _remove(self, name: str) -> None:
        path = self._path(name)
        if self._files.get_file_info(path).type != self._types.NotFound:
            self._files.delete_dir(path)
