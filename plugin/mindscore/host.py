"""A small host: a transcript's conversation as a Mind, with a registry like any other host's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mindhooks import (
    Activity,
    Context,
    FinetuneCandidate,
    MemoryScore,
    MindState,
    Registry,
    hookimpl,
)
from mindscore.transcripts import Transcript

ShowActivity = Callable[[str], Activity]


class TranscriptMind:
    """The conversation of a transcript, tokenised by the scorer on first use."""

    def __init__(self, transcript: Transcript, show: ShowActivity) -> None:
        self.state = MindState()
        self.registry: Registry | None = None
        self._transcript = transcript
        self._show = show
        self._context: Context | None = None

    async def context(self) -> Context:
        if self._context is None:
            assert self.registry is not None
            scorer = await self.registry.scorer()
            self._context = await self._transcript.context(scorer.tokenize)
        return self._context

    def activity(self, message: str) -> Activity:
        return self._show(message)

    def changed(self) -> None:
        """Nothing to wake: results are shown when the command is done."""
