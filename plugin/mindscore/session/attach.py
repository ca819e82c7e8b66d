"""A Mind for any agent that has its conversation as chat messages."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindhooks import (
    MindCommand,
    MindhooksError,
    MindState,
    ThreadedRegistry,
)
from mindscore._util.errors import format_error
from mindscore.conversation.conversation import Conversation, Transcript
from mindscore.conversation.message import Message, from_openai
from mindscore.recognisers import MemoryFinder
from mindscore.session.session import Result, Session

Messages = Callable[[], Iterable[Mapping[str, Any] | Message]]
Memories = Mapping[str, str] | Callable[[], Mapping[str, str]] | None

log = logging.getLogger("mindscore")

CONVERSATION = Path("conversation")
"""Stands for the file in messages about an agent's conversation."""

NO_CONVERSATION = Transcript(CONVERSATION, (), (), ())

IDLE_S = 60.0
"""An agent that said nothing for so long has time for what is due."""


class Scoring:
    """A command under way: ``await`` it, or ask for its ``result()`` from a thread."""

    def __init__(self, future: Future[Result]) -> None:
        self.future = future

    def __await__(self) -> Generator[Any, None, Result]:
        return asyncio.wrap_future(self.future).__await__()

    def result(self, timeout_s: float | None = None) -> Result:
        """Wait for the end, and return what was found.

        Raises:
            TimeoutError: it has not ended after ``timeout_s``; it goes on.
            MindhooksError: nobody took the command.
        """
        return self.future.result(timeout_s)


class Attached:
    """An agent's plugins, beside it in a thread of their own. Made by ``attach``.

    ``state`` is what the flows found, for the agent's screen. Used as a context manager, or closed
    by ``close()``. All methods may be called from any thread, with an event loop or without.
    """

    def __init__(
        self,
        messages: Messages,
        memories: Memories,
        settings: Mapping[str, Any],
        every_turns: int,
        idle_s: float,
    ) -> None:
        self._messages = messages
        self._memories = memories
        self._every_turns = every_turns
        self._idle_s = idle_s
        self._turns = 0
        self._beginning = threading.Lock()
        self._under_way: Future[Result] | None = None
        self._idle: threading.Timer | None = None
        # On first use: a lock of the thread's loop, and all the recognisers that are installed.
        self._turn: asyncio.Lock | None = None
        self._finder: MemoryFinder | None = None
        self._session = Session(NO_CONVERSATION)
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
        """A line for each thing not understood in the conversation that was scored last."""
        return self._session.transcript.remarks

    def turn_ended(self) -> None:
        """Say that the agent has answered.

        What is due is scored after every so many turns, and when the agent has been idle; never
        two runs at once.
        """
        self._turns += 1
        self._cancel_idle()
        if self._every_turns and self._turns % self._every_turns == 0:
            self._score_due()
        elif self._idle_s:
            self._idle = threading.Timer(self._idle_s, self._score_idle)
            self._idle.daemon = True
            self._idle.start()

    def score(self, command: str = MindCommand.SCORE) -> Scoring:
        """Score the conversation as it is now, after whatever is still being scored."""
        snapshot = self._snapshot()
        return Scoring(self.registry.submit(self._run(command, snapshot)))

    def close(self) -> None:
        """End what is under way, as ``ThreadedRegistry.close``."""
        self._cancel_idle()
        self.registry.close()

    def _score_due(self) -> None:
        with self._beginning:
            if self._under_way is None or self._under_way.done():
                self._under_way = self.score().future

    def _score_idle(self) -> None:
        """Score what is due on a timer's thread, and log what is raised: nobody hears it there."""
        try:
            self._score_due()
        except Exception as error:
            log.error("scoring when idle: %s", format_error(error))

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _snapshot(self) -> _Snapshot:
        # On the host's thread, where nothing changes meanwhile.
        given = [it if isinstance(it, Message) else from_openai(it) for it in self._messages()]
        memories = self._memories() if callable(self._memories) else self._memories
        return _Snapshot(tuple(given), dict(memories or {}))

    async def _run(self, command: str, snapshot: _Snapshot) -> Result:
        """Run one command over one snapshot, after the command before it."""
        if self._turn is None:
            self._turn = asyncio.Lock()
        if self._finder is None:
            self._finder = MemoryFinder()
        async with self._turn:
            await self.registry.registry.wait_idle()
            self._finder.known = snapshot.memories
            conversation = Conversation("", snapshot.messages)
            self._session.transcript = conversation.transcript(CONVERSATION, self._finder)
            return await self._session.run(command, tuple(self._session.transcript.keys()))


@dataclass(frozen=True, slots=True)
class _Snapshot:
    messages: tuple[Message, ...]
    memories: dict[str, str]


def attach(
    messages: Messages,
    memories: Memories = None,
    *,
    settings: Mapping[str, Any] | None = None,
    every_turns: int = 1,
    idle_s: float = IDLE_S,
) -> Attached:
    """Give an agent its plugins, whatever it is made with, with an event loop or without.

    ``messages`` returns the conversation as OpenAI-style messages; it is called on the thread that
    calls ``turn_ended`` or ``score``. ``memories`` are ``{key: text}``, or what returns them; those
    that a known host prints in its own way are found without. ``settings`` is the parsed TOML,
    else the user's own configuration is read. Due memories are scored after ``every_turns`` turns
    (0: never by itself), and once the agent has been idle for ``idle_s`` seconds (0: never).

    Raises:
        ConfigError: the configuration is wrong.
        MindhooksError: ``every_turns`` or ``idle_s`` is negative.
    """
    if every_turns < 0 or idle_s < 0:
        raise MindhooksError("every_turns and idle_s: expected 0 or more")
    if settings is None:
        from mindscore.config.file import load_configuration

        settings = load_configuration(None).tables
    return Attached(messages, memories, settings, every_turns, idle_s)
