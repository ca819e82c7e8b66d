"""``--html``: what a command found, as a page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindscore.cli.result import Result
from mindscore.config import parse_settings
from mindscore.host import Session
from mindscore.pages.environment import environment
from mindscore.report.file import ReportFile
from mindscore.report.page import render
from mindscore.report.spoken import spoken_words

PATIENCE_S = 60.0
"""How long a model server may take to say what the words of the responses are."""


class HtmlReport:
    """The page that is to be written to ``file`` after a run by the settings in ``tables``.

    ``patience_s``: how many seconds it may take to learn the words of the responses.
    """

    def __init__(
        self, file: Path, tables: Mapping[str, Any], patience_s: float = PATIENCE_S
    ) -> None:
        self._file = ReportFile(file)
        self._settings = parse_settings(tables)
        self._patience_s = patience_s
        self._without_words: str | None = None

    def check(self, others: Mapping[str, Path | None]) -> None:
        """Refuse, before anything is scored, what could not be written, or must not be.

        ``others`` are the files that the run reads, by what they are; ``None`` is none.

        Raises:
            UsageError: says why.
        """
        from mindscore.store.database import file_of

        environment("mindscore.report")
        named = {what: file for what, file in others.items() if file is not None}
        self._file.check({**named, "store": file_of(self._settings.store.url)})

    async def with_words(self, session: Session, result: Result) -> Result:
        """``result`` with the words of the responses of which single tokens are known."""
        told = {
            cell.node_id
            for score in result.scores.values()
            for cell in score.divergences
            if cell.tokens is not None
        }
        if not told:
            return result
        with session.mind.activity("report: words of the responses"):
            context, scorer = await session.mind.context(), await session.registry.scorer()
            try:
                async with asyncio.timeout(self._patience_s):
                    words = await spoken_words(context, told, scorer)
            except TimeoutError:
                self._without_words = (
                    f"the server did not say within {self._patience_s:g} s what their tokens are"
                )
                return result
            return replace(result, words=words)

    def write(self, result: Result) -> None:
        """Write the page.

        Raises:
            UsageError: it cannot be written.
        """
        self._file.write(render(result, self._settings, self._without_words))
