"""A Mind for any agent that has its conversation as chat messages."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Generator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindhooks import MindCommand, MindhooksError, MindState, ThreadedRegistry
from mindscore._util.clock import Clock
from mindscore._util.errors import ErrorLog
from mindscore.config.settings import parse_settings
from mindscore.conversation.conversation import Conversation, Transcript
from mindscore.conversation.places import typed_remarks
from mindscore.flows.recorder import CANCELLED
from mindscore.recognisers import MemoryFinder
from mindscore.session.hourly_tokens import BudgetedRun
from mindscore.session.leaning import Leaning, Leanings, stored_leanings
from mindscore.session.live import LiveLoop
from mindscore.session.result import Result
from mindscore.session.session import Session, model_name
from mindscore.session.snapshot import Host, Memories, Messages, Snapshot

CONVERSATION = Path("conversation")
"""Stands for the file in messages about an agent's conversation."""

NO_CONVERSATION = Transcript(CONVERSATION, (), (), ())

IDLE_S = 60.0
"""An agent that said nothing for so long has time for what is due."""

FORKED = "it was attached in another process, from which this one was forked: attach after the fork"


class Scoring:
    """A command under way: ``await`` it, or ask for its ``result()`` from a thread."""

    def __init__(self, future: Future[Result]) -> None:
        self.future = future
        self._process = os.getpid()

    def __await__(self) -> Generator[Any, None, Result]:
        return asyncio.wrap_future(self.future).__await__()

    def result(self, timeout_s: float | None = None) -> Result:
        """Wait for the end, and return what was found.

        Raises:
            TimeoutError: it has not ended after ``timeout_s``; it goes on.
            MindhooksError: nobody took the command, the agent's plugins were closed meanwhile, or
                this process was forked from the one that scores.
        """
        if self._process != os.getpid():
            raise MindhooksError(FORKED)
        if timeout_s is not None:
            timeout_s = min(timeout_s, threading.TIMEOUT_MAX)
        return self.future.result(timeout_s)


class Attached:
    """An agent's plugins, beside it in a thread of their own. Made by ``attach``.

    ``state`` is what the flows found, for the agent's screen. Used as a context manager, or closed
    by ``close()``. All methods may be called from any thread, with an event loop or without.
    ``clock`` is for the waiting of an idle agent, and for ``live.tokens_per_hour``.
    """

    def __init__(
        self,
        messages: Messages,
        memories: Memories,
        settings: Mapping[str, Any],
        every_turns: int,
        idle_s: float,
        memories_anywhere: bool,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or Clock()
        self._host = Host(messages, memories)
        self._anywhere = memories_anywhere
        self._every_turns = every_turns
        self._idle_s = idle_s
        self._turns = itertools.count(1)
        self._problems = ErrorLog("mindscore")
        self._newest: Snapshot | None = None
        self._under_way: Future[None] | None = None
        # Used on the registry's thread only.
        self._scored: Snapshot | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._idle: asyncio.Task[None] | None = None
        # On first use: a lock of the thread's loop, and all the recognisers that are installed.
        self._turn: asyncio.Lock | None = None
        self._finder: MemoryFinder | None = None
        self._session = Session(NO_CONVERSATION)
        self._leanings = Leanings(NO_CONVERSATION, {})
        self._live = LiveLoop(self._session, self._clock, self._note, self._problems.warn)
        self.registry = ThreadedRegistry(self._session, settings)
        try:
            self.registry.load_entry_points()
            self._session.listen(self.registry.registry)
        except BaseException:
            self.registry.close()
            raise

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> MindState:
        """The flows' findings so far."""
        return self._session.state

    @property
    def remarks(self) -> tuple[str, ...]:
        """A line for each thing not understood in the conversation that was scored last.

        And one for each that waits for tokens (``live.tokens_per_hour``).
        """
        return (*self._session.remarks, *self._live.remarks)

    def leaned_on(self, node_id: str | None = None) -> tuple[Leaning, ...] | None:
        """Return the memories that a response leaned on, the strongest first.

        ``node_id`` is the response's, as in the results; ``None``: the last one that the
        conversation had when it was scored. ``nats`` says by how much the response is less likely
        without the memory; values within noise are left out. ``None`` is returned where no memory
        was measured on it.
        """
        return self._leanings.of_response(node_id)

    def responses_of(self, key: str) -> tuple[Leaning, ...]:
        """Return the responses that leaned on a memory, the strongest first.

        They are of those that it was measured on; values within noise are left out.
        """
        return self._leanings.of_memory(key)

    def turn_ended(self) -> None:
        """Say that the agent has answered; what goes wrong is logged, and the agent goes on.

        What is due is scored after every so many turns, and when the agent has been idle; never
        two runs at once. A turn that ends while one is under way is scored after it, with those
        that end until then.
        """
        with self._problems.catch("this turn is not scored"):
            is_due = bool(self._every_turns) and next(self._turns) % self._every_turns == 0
            # Within the agent's own function: what it returns has this turn in it.
            if self._host.asking or not (is_due or self._idle_s):
                return
            if self.registry.closed:
                # It says why.
                self.registry.dispatch(MindCommand.SCORE)
            self._newest = self._host.snapshot()
            self._under_way = self.registry.submit(self._note_turn(is_due))

    def score(self, command: str = MindCommand.SCORE) -> Scoring:
        """Score the conversation as it is now, after whatever is still being scored.

        Raises:
            TranscriptError: a message is not valid, or has parts that cannot be scored.
            MindhooksError: it is closed, or this process was forked from the one that attached.
        """
        if self.registry.closed:
            self.registry.dispatch(command)
        snapshot = self._host.snapshot()
        snapshot.messages()
        return Scoring(self.registry.submit(self._score(command, snapshot)))

    def score_within_hour(self, command: str) -> Future[BudgetedRun]:
        """Score the conversation as it is now as far as ``live.tokens_per_hour`` has tokens.

        It is for a host with a queue of its own, which keeps what waits. Where there is a limit,
        rows of the matrix that the store has are not measured again.

        Raises:
            TranscriptError: a message is not valid, or has parts that cannot be scored.
            MindhooksError: it is closed, or this process was forked from the one that attached.
        """
        snapshot = self._host.snapshot()
        snapshot.messages()
        return self.registry.submit(self._score_within_hour(command, snapshot))

    def close(self) -> None:
        """End what is under way, as ``ThreadedRegistry.close``."""
        self.registry.close()

    async def _note_turn(self, is_due: bool) -> None:
        """Begin to wait for the agent to be idle, and score if that is due."""
        if self._idle is not None:
            self._idle.cancel()
        if self._idle_s:
            self._idle = asyncio.create_task(self._score_when_idle())
        if is_due:
            # Not awaited: whoever cancels this cancels no run of others.
            await asyncio.wait({self._score_newest()})

    async def _score_when_idle(self) -> None:
        """Score the newest turn unless it was, and later what becomes due or has waited."""
        await self._clock.sleep(self._idle_s)
        while True:
            try:
                interval_s = parse_settings(self.registry.settings).memory.interval_s
            # The run says it.
            except MindhooksError:
                interval_s = 0
            # With an interval of 0 everything is due at any time, and nothing ever becomes so.
            if interval_s or self._scored is not self._newest or self._live.retry_s is not None:
                await asyncio.wait({self._score_newest()})
            waits = [it for it in (interval_s, self._live.retry_s) if it]
            if not waits:
                return
            await self._clock.sleep(max(self._idle_s, min(waits)))

    def _score_newest(self) -> asyncio.Task[None]:
        """Score the newest turn in a task; one that waits for its turn already will do so."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._score_due())
        return self._waiting

    async def _score_due(self) -> None:
        with self._problems.catch("scoring failed", unless=lambda: self.registry.closed):
            async with self._lock():
                self._waiting = None
                again, self._scored = self._scored is self._newest, self._newest
                if self._newest is not None:
                    await self._take(self._newest)
                    await self._live.score(again=again)

    async def _score(self, command: str, snapshot: Snapshot) -> Result:
        async with self._lock():
            await self._take(snapshot)
            talk = self._session.transcript
            result = await self._session.run(command, tuple(talk.keys()))
            self._note(result)
            return result

    async def _score_within_hour(self, command: str, snapshot: Snapshot) -> BudgetedRun:
        async with self._lock():
            await self._take(snapshot)
            run = await self._live.runs.run(command, resume=True)
            if run.result is not None:
                self._note(run.result)
            return run

    def _lock(self) -> asyncio.Lock:
        if self._turn is None:
            self._turn = asyncio.Lock()
        return self._turn

    async def _take(self, snapshot: Snapshot) -> None:
        """Make a snapshot the session's conversation, after the command before it."""
        self._finder = self._finder or MemoryFinder()
        await self.registry.registry.wait_idle()
        self._finder.known = snapshot.memories
        self._finder.anywhere = frozenset(snapshot.memories if self._anywhere else ())
        messages = snapshot.messages()
        conversation = Conversation("", messages, remarks=snapshot.remarks)
        now = conversation.transcript(CONVERSATION, self._finder)
        typed = typed_remarks(now, snapshot.memories, "memories_anywhere=True")
        for remark in (*snapshot.remarks, *typed):
            self._problems.warn(remark)
        now = replace(now, remarks=(*now.remarks, *typed))
        talk = self._session.transcript = now.going_on_from(self._session.transcript)
        if talk.id != self._leanings.conversation:
            self._leanings = await self._stored_leanings(talk)

    async def _stored_leanings(self, talk: Transcript) -> Leanings:
        """Return what earlier runs have measured of a conversation, those before a restart too."""
        registry = self.registry.registry
        try:
            store = parse_settings(registry.settings).store
            return await stored_leanings(store, await model_name(registry), talk)
        # The run says it.
        except MindhooksError:
            return Leanings(talk, {})

    def _note(self, result: Result) -> None:
        """Take note of what a command found in the conversation.

        Raises:
            MindhooksError: it was closed meanwhile.
        """
        _clear_gone(self.state, result.transcript)
        if self.registry.closed:
            raise MindhooksError("the agent's plugins were closed while they were scoring")
        if result.error is not None and result.error != CANCELLED:
            self._problems.warn(f"scoring failed: {result.error}")
        self._leanings = self._leanings.after(result)


def _clear_gone(state: MindState, now: Transcript) -> None:
    """Clear memories and responses that the conversation no longer has."""
    keys, ids = set(now.keys()), {message.id for message in now.conversation}
    for key in state.memory_scores.keys() - keys:
        del state.memory_scores[key]
    for node_id, row in list(state.response_scores.items()):
        for key in row.keys() - keys:
            del row[key]
        if node_id not in ids or not row:
            del state.response_scores[node_id]


def attach(
    messages: Messages,
    memories: Memories = None,
    *,
    settings: Mapping[str, Any] | None = None,
    every_turns: int = 1,
    idle_s: float = IDLE_S,
    memories_anywhere: bool = False,
) -> Attached:
    """Give an agent its plugins, whatever it is made with, with an event loop or without.

    ``messages`` returns the conversation as OpenAI-style messages; it is called on the thread that
    calls ``turn_ended`` or ``score``. ``memories`` are ``{key: text}``, or what returns them; those
    that a known host prints in its own way are found without. Their texts are looked for in system,
    memory and tool messages, and in a user's message between tags such as ``<memories>``: the same
    words that the user typed are no memory. A host that prints memories into the user's message
    without tags says so by ``memories_anywhere``. ``settings`` is the parsed TOML, else the user's
    own configuration is read. Due memories are scored after ``every_turns`` turns
    (0: never by itself), and once the agent has been idle for ``idle_s`` seconds (0: never).

    Failures of what is scored by itself are logged through the logger ``mindscore``, each once.

    Raises:
        ConfigError: the configuration is wrong.
        MindhooksError: ``every_turns`` or ``idle_s`` is negative.
        TypeError: an argument is of another type.
    """
    if not callable(messages):
        raise TypeError("messages: expected a function that returns the conversation")
    if not (memories is None or callable(memories) or isinstance(memories, Mapping)):
        raise TypeError("memories: expected {key: text}, or a function that returns it")
    if not (settings is None or isinstance(settings, Mapping)):
        raise TypeError("settings: expected a mapping, the parsed TOML")
    if not isinstance(every_turns, int) or not isinstance(idle_s, int | float):
        raise TypeError("every_turns and idle_s: expected an integer and a number")
    if not (every_turns >= 0 and idle_s >= 0):
        raise MindhooksError("every_turns and idle_s: expected 0 or more")
    if settings is None:
        from mindscore.config.file import load_configuration

        settings = load_configuration(None).tables
    return Attached(messages, memories, settings, every_turns, idle_s, memories_anywhere)
