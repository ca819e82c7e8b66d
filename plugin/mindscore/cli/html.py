"""``--html``: what a command found, as a page."""

from __future__ import annotations

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


class HtmlReport:
    """The page that is to be written to ``file`` after a run by the settings in ``tables``."""

    def __init__(self, file: Path, tables: Mapping[str, Any]) -> None:
        self._file = ReportFile(file)
        self._settings = parse_settings(tables)

    def check(self, transcript: Path) -> None:
        """Refuse, before anything is scored, what could not be written.

        Raises:
            UsageError: says why.
        """
        environment("mindscore.report")
        self._file.check(transcript)

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
            return replace(result, words=await spoken_words(context, told, scorer))

    def write(self, result: Result) -> None:
        """Write the page.

        Raises:
            UsageError: it cannot be written.
        """
        self._file.write(render(result, self._settings))
