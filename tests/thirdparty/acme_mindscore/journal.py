"""A listener: writes each score as a line, in a queue of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from mindhooks import MemoryScore, hookimpl


class Journal:
    """Appends to the file that its table names; ``pause_s`` makes it slow, ``fail`` broken."""

    def __init__(self, table: dict[str, Any]) -> None:
        self._file = Path(table["file"]) if "file" in table else None
        self._pause_s = float(table.get("pause_s", 0))
        self._fail = bool(table.get("fail", False))

    @hookimpl
    async def on_score(self, score: MemoryScore) -> None:
        await asyncio.sleep(self._pause_s)
        if self._fail:
            raise RuntimeError("the journal is\nfull")
        if self._file is not None:
            self._append(f"{score.key} {score.score:.6f}\n")

    def _append(self, line: str) -> None:
        with self._file.open("a") as file:
            file.write(line)

    async def aclose(self) -> None:
        if self._file is not None:
            self._append("closed\n")
