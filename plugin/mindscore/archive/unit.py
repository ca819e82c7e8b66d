"""Score one conversation of an archive: the unit of work of every engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mindhooks import Activity, Context, MindState, Scorer
from mindscore._util.files import STANDARD_INPUT
from mindscore.config.file import merge
from mindscore.config.settings import MemoryScoringOptions, parse_settings, parse_table
from mindscore.conversation.conversation import Transcript
from mindscore.display.documents import document
from mindscore.flows.seen import seen_of, source_of
from mindscore.measure.memories import text_hashes
from mindscore.measure.retry import Retry
from mindscore.session.session import Result, Session, SilentActivity
from mindscore.store import ConversationFacts, Evidence, MemoryText, Seen
from mindscore.store.seen import cell_values


@dataclass(frozen=True, slots=True)
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

    def document(self) -> dict[str, Any]:
        """Return the document of ``--json``, with the conversation's id and its file."""
        return {
            **document(self.result),
            "conversation": self.conversation,
            "source": str(self.result.transcript.file),
        }

    def evidence(self) -> list[Evidence]:
        """Return the measured cells, as the store keeps them."""
        if self.context is None:
            return []
        hashes, found = text_hashes(self.context), list[Evidence]()
        for score in self.result.scores.values():
            about: dict[str, Any] = {
                "conversation": self.conversation,
                "model": self.result.model,
                "key": score.key,
                "text_hash": hashes.get(score.key, ""),
                "scored_at": self.scored_at,
            }
            values = cell_values(score, self._seen(score.key, keep_texts=False))
            found += [Evidence(**about, **it) for it in values]
        return found

    def texts(self, *, keep_texts: bool) -> list[MemoryText]:
        """Return the texts of the memories that were scored; without them, their facts alone."""
        if self.context is None:
            return []
        hashes, when, found = text_hashes(self.context), self.scored_at, list[MemoryText]()
        for key in self.result.scores:
            if key in hashes:
                seen = self._seen(key, keep_texts=keep_texts)
                found.append(MemoryText(key, hashes[key], seen.text, seen.tokens, when, when))
        return found

    def facts(self) -> ConversationFacts | None:
        """Return the facts of the conversation; ``None``: nothing of it was scored."""
        first = next(iter(self.result.scores), None)
        return None if first is None else self._seen(first, keep_texts=False).conversation

    def _seen(self, key: str, *, keep_texts: bool) -> Seen:
        context = self.context or Context((), (), ())
        return seen_of(self.result.scores[key], context, self.source, keep_texts=keep_texts)


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
        """True if the last command ended because too many calls in a row had failed."""
        retry: Retry | None = self._session.registry.stash.get(Retry)
        return retry is not None and retry.is_open

    async def score(
        self,
        transcript: Transcript,
        command: str,
        keys: tuple[str, ...] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ScoredConversation:
        """Run ``command`` over one conversation, and return what it found.

        ``keys``: the memories that are asked for, if not all; ``options``: those of
        memory-scoring for this conversation, in place of the settings'. A conversation that
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


async def score_conversation(
    transcript: Transcript, tables: Mapping[str, Any], command: str, scorer: Scorer | None = None
) -> ScoredConversation:
    """Run ``command`` over one conversation in a registry of its own.

    Raises:
        ConfigError: the settings are wrong, or the scorer cannot be built because of them.
    """
    async with open_unit(tables, scorer) as unit:
        return await unit.score(transcript, command)
