"""Scoring of the turns that wait, session by session, and what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from msgspec import Meta, Struct
from sqlalchemy import Connection, delete, func, select

from mindhooks import FinetuneCandidate, MemoryScore, MindCommand, MindhooksError
from mindscore._util.errors import StoreError, TranscriptError, format_error
from mindscore._util.files import make_file
from mindscore.config.file import load_configuration, merge
from mindscore.config.settings import Settings, parse_table
from mindscore.conversation.chat import LeftOut, read_messages
from mindscore.conversation.message import Message, with_ids
from mindscore.integrations.hermes.queue import TurnQueue, WaitingTurn
from mindscore.integrations.hermes.tables import FINDINGS, drops, hermes_candidates, hermes_memories
from mindscore.measure.divergence import within_noise
from mindscore.measure.prompts import response_hash
from mindscore.recognisers import MemoryFinder
from mindscore.session.attach import Attached, attach
from mindscore.session.hourly_tokens import BudgetedRun
from mindscore.session.leaning import Leaning
from mindscore.store.database import Database
from mindscore.store.namespace import DAY_S
from mindscore.store.transactions import replacing, upsert

NAMESPACE = "hermes"
TABLE = "plugins.settings.hermes"


class HermesOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[plugins.settings.hermes]``.

    ``idle_s``: what waits is scored after this many seconds without a turn; 0: never by itself.
    """

    idle_s: Annotated[float, Meta(ge=0, le=1e9)] = 60.0


@dataclass(frozen=True, slots=True)
class HermesSettings:
    """The configuration as tables for a registry and checked, the plugin's own, and its file."""

    tables: Mapping[str, Any]
    settings: Settings
    options: HermesOptions
    file: Path | None


def load_settings() -> HermesSettings:
    """Load the user's configuration, with the namespace ``hermes`` unless it names one.

    Candidates are looked for unless it says something else.

    Raises:
        ConfigError: it is wrong.
    """
    found = load_configuration(None)
    given = found.settings.plugins.settings.get("hermes", {})
    options = parse_table(given, HermesOptions, TABLE)
    defaults = {"store": {"namespace": NAMESPACE}, "live": {"candidates": True}}
    tables = merge(defaults, found.tables)
    return HermesSettings(tables, parse_table(tables, Settings, ""), options, found.file)


TOOLS = "the tools are not in the scored context"
NO_SYSTEM = "a request had no system message: its scores are of a reconstructed context"


@dataclass(slots=True)
class Pass:
    """The findings of one pass over the queue.

    ``memories`` are the texts by key, ``largest`` their largest divergences, in nats, ``leaned``
    what the last reply leaned on; ``error`` says what ended the pass early. ``waits`` says what
    waits for tokens, of which some may be free after ``retry_s`` seconds; ``None``: never so many.
    """

    model: str = ""
    sessions: int = 0
    turns: int = 0
    memories: dict[str, str] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    candidates: list[FinetuneCandidate] = field(default_factory=list)
    leaned: tuple[Leaning, ...] = ()
    remarks: dict[str, None] = field(default_factory=dict)
    error: str | None = None
    waits: str | None = None
    retry_s: float | None = None

    @property
    def may_go_on(self) -> bool:
        """True if nothing failed, and no turn waits for tokens that the next one would take."""
        return self.error is None and self.retry_s is None


@dataclass(frozen=True, slots=True)
class MeasuredMemory:
    """A memory, on how many responses it was measured, and its largest divergence, in nats.

    ``is_current``: the newest conversation with memories of its kind holds it.
    """

    key: str
    text: str
    responses: int
    largest: float
    is_current: bool

    @property
    def kind(self) -> str:
        """The ``kind_of`` its key."""
        return kind_of(self.key)


@dataclass(frozen=True, slots=True)
class FoundCandidate:
    """A response for training: its divergence without any memory, its text and its ids' hash."""

    divergence: float
    text: str
    response: str


def kind_of(key: str) -> str:
    """Return ``memory`` or ``user`` for Hermes' files, ``recall`` for a provider's, ``other``."""
    parts = key.split(":")
    return parts[1] if len(parts) == 3 and parts[0] == "hermes" else "other"


class HermesFindings:
    """Measured memories and candidates, by model. Every method may raise ``StoreError``."""

    def __init__(self, file: Path) -> None:
        self._database = Database(file, FINDINGS)

    def record(
        self,
        model: str,
        memories: Mapping[str, str],
        divergences: Mapping[str, Mapping[str, float]],
        candidates: Iterable[FinetuneCandidate],
        retention_days: float,
    ) -> None:
        """Keep the findings of one conversation; ``divergences`` are by key and response.

        A new measurement replaces an old one; with ``retention_days`` above 0, older ones go.
        """
        now = time.time()
        times = (drops.c.measured_at, hermes_candidates.c.found_at, hermes_memories.c.seen_at)
        rows = {
            hermes_memories: [
                {"key": key, "text": text, "seen_at": now} for key, text in memories.items()
            ],
            drops: [
                {
                    "key": key,
                    "model": model,
                    "response": response,
                    "divergence": divergence,
                    "measured_at": now,
                }
                for key, row in divergences.items()
                for response, divergence in row.items()
            ],
            hermes_candidates: [
                {
                    "response": response_hash(it.continuation_ids),
                    "model": model,
                    "divergence": it.divergence,
                    "text": it.response_text,
                    "found_at": now,
                }
                for it in candidates
            ],
        }

        def work(connection: Connection) -> None:
            for when in times if retention_days else ():
                old = delete(when.table).where(when < now - retention_days * DAY_S)
                connection.execute(old)
            for table, found in rows.items():
                upsert(connection, table, found, replacing(table))

        self._database.write_now(work)

    def memories(self, model: str) -> list[MeasuredMemory]:
        """List every memory that ``model`` measured, the largest divergence first."""
        of, largest = hermes_memories.c, func.max(drops.c.divergence)
        query = (
            select(of.key, of.text, func.count(), largest, of.seen_at)
            .join(drops, drops.c.key == of.key)
            .where(drops.c.model == model)
            .group_by(of.key)
            .order_by(largest.desc(), of.key)
        )
        found = self._database.read_now(lambda connection: connection.execute(query).all())
        newest: dict[str, float] = {}
        for key, *_, seen_at in found:
            newest[kind_of(key)] = max(seen_at, newest.get(kind_of(key), 0.0))
        return [
            MeasuredMemory(key, text, responses, most, seen_at == newest[kind_of(key)])
            for key, text, responses, most, seen_at in found
        ]

    def candidates(self, model: str) -> list[FoundCandidate]:
        """List every candidate that ``model`` found, the largest divergence first."""
        of = hermes_candidates.c
        query = select(of.divergence, of.text, of.response).where(of.model == model)
        query = query.order_by(of.divergence.desc(), of.response)
        found = self._database.read_now(lambda connection: connection.execute(query).all())
        return [FoundCandidate(*row) for row in found]

    def models(self) -> list[str]:
        """List the models that measured something, the last one first."""
        newest = func.max(drops.c.measured_at).desc()
        query = select(drops.c.model).group_by(drops.c.model).order_by(newest)
        models = self._database.read_now(lambda it: it.execute(query).scalars().all())
        return list(models)


class HermesScoring:
    """Scores turns of the queue into the findings and the store, in one process at a time.

    ``lock`` is the file that a scoring process holds.
    """

    def __init__(self, queue: TurnQueue, findings: HermesFindings, lock: Path) -> None:
        self._queue = queue
        self._findings = findings
        self._lock = lock
        self._messages: list[Message] = []

    def run(
        self,
        settings: HermesSettings,
        goes_on: Callable[[], bool] = lambda: True,
        *,
        asked: bool = True,
    ) -> Pass:
        """Score what waits, until nothing does, ``goes_on`` says no, or a session fails.

        A session that fails stays, behind the others. A turn that cannot be read is removed, with
        a remark. Unless it was ``asked`` for, it ends when ``live.tokens_per_hour`` is used up: the
        turns that are left stay.

        Raises:
            MindhooksError: the queue or the findings cannot be used, or the configuration is wrong.
        """
        done = Pass()
        try:
            make_file(self._lock)
            held = FileLock(self._lock, timeout=0, mode=0o600).acquire()
        except Timeout:
            done.error = "another Hermes is scoring at the moment"
            return done
        except OSError as error:
            raise StoreError(f"the lock {self._lock}: {error}") from error
        with held:
            turn = self._queue.next()
            if turn is None:
                return done
            attached = attach(
                lambda: self._messages, settings=settings.tables, every_turns=0, idle_s=0
            )
            try:
                seen: set[int] = set()
                while turn is not None and turn.id not in seen and done.may_go_on and goes_on():
                    seen.add(turn.id)
                    self._score(attached, settings, turn, done, asked=asked)
                    turn = self._queue.next()
            finally:
                attached.close()
        return done

    def _score(
        self,
        attached: Attached,
        settings: HermesSettings,
        turn: WaitingTurn,
        done: Pass,
        *,
        asked: bool,
    ) -> None:
        try:
            left_out = LeftOut()
            self._messages = _messages(turn, left_out)
            done.remarks |= dict.fromkeys(left_out.remarks())
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
                runs = self._run(attached, settings, asked=asked)
                self._record(attached, settings, memories, places, runs, done)
            except MindhooksError as error:
                done.error = format_error(error)
                self._queue.put_off(turn)
                return
            if waiting := [it for it in runs if it.waits]:
                done.waits, done.retry_s = waiting[-1].waits, waiting[-1].retry_s
                if done.retry_s is None:
                    self._queue.put_off(turn)
                return
            done.remarks |= dict.fromkeys((TOOLS, *attached.remarks))
            if not any(message.role == "system" for message in self._messages):
                done.remarks[NO_SYSTEM] = None
        done.sessions, done.turns = done.sessions + 1, done.turns + turn.turns
        self._queue.remove(turn)

    def _run(
        self, attached: Attached, settings: HermesSettings, *, asked: bool
    ) -> list[BudgetedRun]:
        """Run the matrix and the search for candidates, until something waits for tokens."""
        commands = [MindCommand.SCORE_FULL]
        if asked or settings.settings.live.candidates:
            commands.append(MindCommand.SCORE_FINETUNE)
        runs: list[BudgetedRun] = []
        for command in commands:
            if runs and runs[-1].waits:
                break
            if asked:
                runs.append(BudgetedRun(attached.score(command).result()))
            else:
                runs.append(attached.score_within_hour(command).result())
        return runs

    def _record(
        self,
        attached: Attached,
        settings: HermesSettings,
        memories: Mapping[str, str],
        places: Mapping[str, int],
        runs: Sequence[BudgetedRun],
        done: Pass,
    ) -> None:
        results = [it.result for it in runs if it.result is not None]
        if error := next((it.error for it in results if it.error), None):
            raise MindhooksError(error)
        at = {message.id: index for index, message in enumerate(self._messages)}
        divergences = {
            key: _divergences(score, places.get(key, -1), at)
            for result in results
            for key, score in result.scores.items()
        }
        if not results:
            return
        days = settings.settings.store.retention_days
        candidates = [it for result in results for it in result.candidates]
        self._findings.record(results[0].model, memories, divergences, candidates, days)
        done.model = results[0].model
        done.memories |= memories
        done.leaned = attached.leaned_on() or ()
        done.candidates += candidates
        for key, row in divergences.items():
            done.largest[key] = max(done.largest.get(key, 0.0), *row.values(), 0.0)


def _messages(turn: WaitingTurn, left_out: LeftOut) -> list[Message]:
    """Return the turn's messages, with ids that are unique among all sessions."""
    read = [it for given in turn.messages for it in read_messages(given, left_out.add)]
    named = with_ids(read)
    return [replace(message, id=f"{turn.session}/{message.id}") for message in named]


def _memories(messages: list[Message]) -> tuple[dict[str, str], dict[str, int]]:
    """Return the memories' texts by key, and the index of the message where each is first."""
    finder = MemoryFinder()
    texts: dict[str, str] = {}
    places: dict[str, int] = {}
    for index, message in enumerate(messages):
        for block in finder.find(message.role, message.text).blocks:
            for entry in block.entries:
                texts.setdefault(entry.key, entry.text)
                places.setdefault(entry.key, index)
    return texts, places


def _divergences(score: MemoryScore, place: int, at: Mapping[str, int]) -> dict[str, float]:
    """Return the divergences of the responses after the memory, 0.0 for what may be noise."""
    return {
        it.node_id: 0.0 if within_noise(it) else it.divergence
        for it in score.divergences
        if at.get(it.node_id, -1) > place
    }
