"""Scores the turns that wait, session by session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from mindhooks import FinetuneCandidate, MemoryScore, MindCommand, MindhooksError
from mindscore._util.errors import TranscriptError, format_error
from mindscore.config.file import load_configuration, merge
from mindscore.config.settings import Settings, parse_table
from mindscore.conversation.message import Message, from_openai, with_ids
from mindscore.integrations.hermes.database import OneProcess
from mindscore.integrations.hermes.findings import HermesFindings
from mindscore.integrations.hermes.queue import TurnQueue, WaitingTurn
from mindscore.measure.divergence import within_noise
from mindscore.recognisers import MemoryFinder
from mindscore.session.attach import Attached, attach

NAMESPACE = "hermes"
TABLE = "plugins.settings.hermes"


class HermesOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[plugins.settings.hermes]``.

    ``idle_s``: after so many seconds without a turn, what waits is scored; 0: never by itself.
    """

    idle_s: Annotated[float, Meta(ge=0, le=1e9)] = 60.0


@dataclass(frozen=True, slots=True)
class HermesSettings:
    """The tables for a registry, the same checked, the plugin's own, and the file."""

    tables: Mapping[str, Any]
    settings: Settings
    options: HermesOptions
    file: Path | None


def load_settings() -> HermesSettings:
    """The user's configuration, with the namespace ``hermes`` unless it names one.

    Raises:
        ConfigError: it is wrong.
    """
    found = load_configuration(None)
    given = found.settings.plugins.settings.get("hermes", {})
    options = parse_table(given, HermesOptions, TABLE)
    if "namespace" in found.tables.get("store", {}):
        return HermesSettings(found.tables, found.settings, options, found.file)
    tables = merge(found.tables, {"store": {"namespace": NAMESPACE}})
    return HermesSettings(tables, parse_table(tables, Settings, ""), options, found.file)


TOOLS = "the tools are not in the scored context"
NO_SYSTEM = "a request had no system message: its scores are of a reconstructed context"


@dataclass(slots=True)
class Pass:
    """What one pass over the queue found.

    ``memories`` are the texts by key, ``largest`` their largest divergences, in nats; ``error``
    says what ended the pass early, ``None``: nothing.
    """

    model: str = ""
    sessions: int = 0
    turns: int = 0
    memories: dict[str, str] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    candidates: list[FinetuneCandidate] = field(default_factory=list)
    remarks: dict[str, None] = field(default_factory=dict)
    error: str | None = None


class HermesScoring:
    """Takes turns from the queue, and puts what they give into the findings and the store."""

    def __init__(self, queue: TurnQueue, findings: HermesFindings, turn: OneProcess) -> None:
        self._queue = queue
        self._findings = findings
        self._turn = turn
        self._messages: list[Message] = []

    def run(self, settings: HermesSettings, goes_on: Callable[[], bool] = lambda: True) -> Pass:
        """Score what waits, until nothing does, ``goes_on`` says no, or a session fails.

        A session that fails stays, behind the others. What cannot be read is removed, and said.

        Raises:
            MindhooksError: the queue or the findings cannot be used, or the configuration is wrong.
        """
        done = Pass()
        with self._turn.held() as held:
            if not held:
                done.error = "another Hermes is scoring at the moment"
                return done
            turn = self._queue.next()
            if turn is None:
                return done
            attached = attach(
                lambda: self._messages, settings=settings.tables, every_turns=0, idle_s=0
            )
            try:
                while turn is not None and done.error is None and goes_on():
                    self._score(attached, settings, turn, done)
                    turn = self._queue.next()
            finally:
                attached.close()
        return done

    def _score(
        self, attached: Attached, settings: HermesSettings, turn: WaitingTurn, done: Pass
    ) -> None:
        try:
            self._messages = _messages(turn)
        except TranscriptError as error:
            mode = turn.about.get("api_mode", "")
            done.remarks[
                f"a turn was left out: not a chat request ({mode}): {format_error(error)}"
            ] = None
            self._queue.remove(turn)
            return
        memories, places = _memories(self._messages)
        if memories:
            try:
                self._measure(attached, settings, memories, places, done)
            except MindhooksError as error:
                done.error = format_error(error)
                self._queue.put_off(turn)
                return
            done.remarks |= dict.fromkeys((TOOLS, *attached.remarks))
            if not any(message.role == "system" for message in self._messages):
                done.remarks[NO_SYSTEM] = None
        done.sessions, done.turns = done.sessions + 1, done.turns + turn.turns
        self._queue.remove(turn)

    def _measure(
        self,
        attached: Attached,
        settings: HermesSettings,
        memories: Mapping[str, str],
        places: Mapping[str, int],
        done: Pass,
    ) -> None:
        registry = attached.registry
        scorer = registry.submit(registry.registry.scorer()).result()
        scored = attached.score(MindCommand.SCORE_FULL).result()
        trained = attached.score(MindCommand.SCORE_FINETUNE).result()
        if error := scored.error or trained.error:
            raise MindhooksError(error)
        at = {message.id: index for index, message in enumerate(self._messages)}
        drops = {
            key: _drops(score, places.get(key, -1), at) for key, score in scored.scores.items()
        }
        days = settings.settings.store.retention_days
        self._findings.record(scorer.model, memories, drops, trained.candidates, days)
        done.model = scorer.model
        done.memories |= memories
        done.candidates += trained.candidates
        for key, row in drops.items():
            done.largest[key] = max(done.largest.get(key, 0.0), *row.values(), 0.0)


def _messages(turn: WaitingTurn) -> list[Message]:
    """The turn's messages, with ids that no other session's have."""
    named = with_ids(from_openai(message) for message in turn.messages)
    return [replace(message, id=f"{turn.session}/{message.id}") for message in named]


def _memories(messages: list[Message]) -> tuple[dict[str, str], dict[str, int]]:
    """The texts of the memories by key, and at which message each is first."""
    finder = MemoryFinder()
    texts: dict[str, str] = {}
    places: dict[str, int] = {}
    for index, message in enumerate(messages):
        for block in finder.find(message.role, message.text).blocks:
            for entry in block.entries:
                texts.setdefault(entry.key, entry.text)
                places.setdefault(entry.key, index)
    return texts, places


def _drops(score: MemoryScore, place: int, at: Mapping[str, int]) -> dict[str, float]:
    """The divergences on the responses after the memory; what may be noise is none."""
    return {
        it.node_id: 0.0 if within_noise(it) else it.divergence
        for it in score.divergences
        if at.get(it.node_id, -1) > place
    }
