"""A small host: a transcript's conversation as a Mind, with a registry like any other host's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from mindhooks import (
    Activity,
    Context,
    FinetuneCandidate,
    MemoryScore,
    MindCommand,
    MindhooksError,
    MindState,
    Registry,
    hookimpl,
)
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.template import template_of
from mindscore.flows.recorder import Kind, unkept


class TranscriptMind:
    """The conversation of a transcript, tokenised by the registry's scorer on first use.

    Registered as a plugin too, it hears scores and candidates: ``hear`` is told of each, and
    ``scores`` keeps the last by memory.
    """

    def __init__(
        self,
        transcript: Transcript,
        show: Callable[[str], Activity],
        hear: Callable[[MemoryScore | FinetuneCandidate], None] = lambda _: None,
    ) -> None:
        self.state = MindState()
        self.transcript = transcript
        self.scores: dict[str, MemoryScore] = {}
        self.candidates: list[FinetuneCandidate] = []
        self._show = show
        self._hear = hear
        self._registry: Registry | None = None
        self._context: Context | None = None

    async def context(self) -> Context:
        if self._registry is None:
            raise MindhooksError("no registry gives this conversation a tokenizer yet")
        if self._context is None:
            scorer = await self._registry.scorer()
            template = template_of(scorer, self._registry.settings)
            self._context = await self.transcript.context(scorer.tokenize, template)
        return self._context

    def activity(self, message: str) -> Activity:
        return self._show(message)

    def changed(self) -> None:
        """Nothing to wake: results are shown as they are heard of, and at the end."""

    @hookimpl
    def on_score(self, score: MemoryScore) -> None:
        self.scores[score.key] = score
        self._hear(score)

    @hookimpl
    def on_candidate(self, candidate: FinetuneCandidate) -> None:
        self.candidates.append(candidate)
        self._hear(candidate)

    def unkept_error(self, command: str) -> str | None:
        """Why not all that ``command`` found is in the store; ``None`` where it is."""
        if self._registry is None:
            return None
        kind: Kind = "candidates" if command == MindCommand.SCORE_FINETUNE else "scores"
        return unkept(self._registry, kind).error

    def attach(self, registry: Registry) -> None:
        """Take the registry whose scorer tokenises, and listen to it."""
        self._registry = registry
        registry.register(self, name="transcript")


class Session:
    """A transcript's mind and its registry, plugins loaded, for one command or several."""

    def __init__(self, mind: TranscriptMind, settings: Mapping[str, Any]) -> None:
        self.mind = mind
        self.registry = Registry(mind, settings)

    async def __aenter__(self) -> Session:
        self.registry.load_entry_points()
        self.mind.attach(self.registry)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.registry.aclose()

    async def run(self, command: str) -> None:
        """Dispatch ``command`` and wait until all that it set going has ended.

        Raises:
            UnhandledCommand: no plugin took it.
        """
        self.mind.scores.clear()
        self.mind.candidates.clear()
        self.registry.dispatch(command)
        await self.registry.wait_idle()
