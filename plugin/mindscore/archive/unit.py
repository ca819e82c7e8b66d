"""Score one conversation of an archive: the unit of work of every engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mindhooks import Activity, Context, MemoryScore, MindState, Scorer
from mindscore._util.files import STANDARD_INPUT
from mindscore.config.file import merge
from mindscore.config.settings import MemoryScoringOptions, parse_settings, parse_table
from mindscore.conversation.conversation import Transcript
from mindscore.display.documents import document
from mindscore.flows.matrix import StoredRows
from mindscore.flows.seen import ContextFacts, source_of
from mindscore.measure.memories import text_hashes
from mindscore.measure.retry import Retry
from mindscore.session.result import Result
from mindscore.session.session import Session, SilentActivity
from mindscore.store import ConversationFacts, Evidence, KnownScore, MemoryText, Notes
from mindscore.store.seen import cell_values


@dataclass(frozen=True)
class ScoredConversation:
    """A conversation with what a command has found in it.

    ``context`` is ``None`` where the conversation could not be rendered; ``source`` is its file,
    empty for standard input; ``scored_at`` is in seconds since the epoch.
    """

    result: Result
    context: Context | None
    source: str
    scored_at: float

    @property
    def conversation(self) -> str:
        """The conversation's id: ``Context.id``."""
        return self.result.transcript.id

    @property
    def error(self) -> str | None:
        """The failure, or ``None``."""
        return self.result.error

    @property
    def is_left_out_in_part(self) -> bool:
        """True if not every memory fitted into ``max_tokens``."""
        return any(it.status == "left-out" for it in self.result.outcomes.values())

    def document(self) -> dict[str, Any]:
        """Return the document of ``--json``, with the conversation's id and its file."""
        return {
            **document(self.result),
            "conversation": self.conversation,
            "source": str(self.result.transcript.file),
        }

    def evidence(self) -> list[Evidence]:
        """Return the measured cells, and those estimated, as the store keeps them."""
        if self.context is None:
            return []
        hashes, found = self._known.text_hashes, list[Evidence]()
        for score in self.result.scores.values():
            about: dict[str, Any] = {
                "conversation": self.conversation,
                "model": self.result.model,
                "key": score.key,
                "text_hash": hashes.get(score.key, ""),
                "scored_at": self.scored_at,
            }
            values = cell_values(score, self._known.responses(score))
            found += [Evidence(**about, **it) for it in values]
        if self.result.screen is not None:
            found += self._known.estimates(self.result.screen, self.result.model, self.scored_at)
        return found

    def notes(self) -> Notes:
        """Return the notes on the matrix, as the store keeps them."""
        result, found = self.result, None
        if result.screen is not None or any(it.hold is not None for it in result.scores.values()):
            found = self._known.interactions(result.redundant, result.interactions)
        return Notes(result.screen, result.placebo, found)

    def texts(self, *, keep_texts: bool) -> list[MemoryText]:
        """Return the texts of the memories that were scored, or estimated.

        Without ``keep_texts``, their facts alone.
        """
        screen = self.result.screen
        keys = (*self.result.scores, *(screen.estimated if screen is not None else ()))
        return self._known.memory_texts(keys, self.scored_at, keep_texts=keep_texts)

    def facts(self) -> ConversationFacts | None:
        """Return the facts of the conversation; ``None``: nothing of it was scored."""
        return self._known.conversation() if self.result.scores or self.result.estimates else None

    def known_scores(self) -> list[KnownScore]:
        """Return when each memory was scored, of a command that scores what is due."""
        if self.context is None:
            return []
        hashes, model, when = text_hashes(self.context), self.result.model, self.scored_at
        return [
            KnownScore(it.key, model, hashes[it.key], self.conversation, it.score, when, 1)
            for it in self.result.scores.values()
            if it.mode == "incremental" and it.key in hashes
        ]

    def rows(self) -> list[MemoryScore]:
        """Return the rows of the matrix that a later run can go on from."""
        return [it for it in self.result.scores.values() if it.fingerprint is not None]

    @cached_property
    def _known(self) -> ContextFacts:
        return ContextFacts(self.context or Context((), (), ()), self.source)


class Unit:
    """One registry and one scorer, for conversation after conversation."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def scorer(self) -> Scorer:
        """Return the scorer, loaded on first use."""
        return await self._session.registry.scorer()

    async def render(self, transcript: Transcript) -> Context:
        """Return the conversation as it is sent to the model; ``score`` uses it, too.

        Raises:
            MindhooksError: it cannot be rendered.
        """
        # Nothing of the conversation before stays.
        self._session.transcript, self._session.state = transcript, MindState()
        return await self._session.context()

    @property
    def gave_up(self) -> bool:
        """True if the last call of the last command has failed: the server may be down."""
        retry: Retry | None = self._session.registry.stash.get(Retry)
        return retry is not None and retry.is_failing

    async def score(
        self,
        transcript: Transcript,
        command: str,
        keys: tuple[str, ...] | None = None,
        options: Mapping[str, Any] | None = None,
        rows: Sequence[MemoryScore] | None = None,
    ) -> ScoredConversation:
        """Run ``command`` over one conversation, and return what it found.

        ``keys``: the memories that are asked for, if not all; ``options``: those of
        memory-scoring for this conversation, in place of the settings'; ``rows``: those of its
        matrix that are known, in place of the store's. A conversation that
        fails is a result with an error. What was found is stored as it is found, unless the
        recorder is disabled.

        Raises:
            ConfigError: the scorer cannot be built because of the configuration.
        """
        session = self._session
        if session.transcript is not transcript:
            session.transcript, session.state = transcript, MindState()
        stash = session.registry.stash
        stash.pop(MemoryScoringOptions, None)
        if options is not None:
            name = "plugins.settings.memory-scoring"
            stash[MemoryScoringOptions] = parse_table(options, MemoryScoringOptions, name)
        stash.pop(StoredRows, None)
        if rows is not None:
            stash[StoredRows] = StoredRows((it.key, it) for it in rows)
        result = await session.attempt(command, tuple(transcript.keys()) if keys is None else keys)
        return ScoredConversation(result, session.rendered, source_of(session), time.time())


@asynccontextmanager
async def open_unit(
    tables: Mapping[str, Any],
    scorer: Scorer | None = None,
    show: Callable[[str], Activity] = lambda _: SilentActivity(),
) -> AsyncIterator[Unit]:
    """Open a registry with the installed plugins, for many conversations.

    ``scorer``: use that one, which its owner closes, instead of the one that ``tables`` name.

    Raises:
        ConfigError: the settings are wrong.
    """
    parse_settings(tables)
    # Verdicts take every cell: those that a screen only estimates would be missing.
    tables = merge(tables, {"memory": {"screen": "off"}})
    nobody = Transcript(STANDARD_INPUT, (), (), ())
    async with Session(nobody, show).open(tables, scorer) as session:
        yield Unit(session)
