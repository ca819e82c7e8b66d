"""The loop of an agent's plugins: what is due, and candidates, within the tokens of an hour."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from mindhooks import MindCommand
from mindscore._util.clock import Clock
from mindscore._util.text import count_of
from mindscore.config.settings import parse_settings
from mindscore.conversation.conversation import Transcript
from mindscore.session.hourly_tokens import BudgetedRun, BudgetedRuns
from mindscore.session.result import Result
from mindscore.session.session import Session

MOST_WAITING = 16
"""Conversations that wait for tokens, beside the present one."""

MOST_SEARCHED = 256
"""Conversations of which it is known how far candidates were looked for."""

USED_UP = (
    "live.tokens_per_hour is used up: what was not scored waits until tokens are free, and the "
    "remarks say what it is"
)
DROPPED = f"more than {MOST_WAITING} conversations wait for tokens: the oldest are not scored"


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A conversation that waits ``until`` some of ``limit`` tokens may be free, by the clock."""

    talk: Transcript
    until: float
    limit: int


class LiveLoop:
    """Scores a session's conversation by itself, and those before it that wait for tokens.

    ``note`` is called with each result of the present conversation, ``warn`` with lines that are to
    be logged. Used on the registry's thread, by one task at a time.

    Attributes:
        runs: runs its commands, and those of hosts that have a queue of their own.
        remarks: lines on what waits for tokens.
        retry_s: the seconds after which there may be tokens for that; ``None``: nothing waits, or
            waiting does not help.
    """

    def __init__(
        self,
        session: Session,
        clock: Clock,
        note: Callable[[Result], None],
        warn: Callable[[str], None],
    ) -> None:
        self.remarks: tuple[str, ...] = ()
        self.retry_s: float | None = None
        self._session = session
        self.runs = BudgetedRuns(session, clock)
        self._note = note
        self._warn = warn
        self._clock = clock
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._searched: OrderedDict[str, str] = OrderedDict()

    async def score(self, *, again: bool) -> None:
        """Score what is due, and look for candidates if the settings say so.

        The conversations that wait for tokens come before the present one, in the order in which
        they began to wait. ``again``: the present one has been scored as it is.

        Raises:
            ConfigError: the settings are wrong.
        """
        session, present = self._session, self._session.transcript
        retries: list[float] = []
        limit, now = self._limit, self._clock.now()
        for it in [it for id_, it in self._waiting.items() if id_ != present.id]:
            if now < it.until and it.limit == limit:
                # It has not changed, and nothing is free for it: it is not tokenised again.
                retries.append(it.until - now)
                continue
            with _shown_kept(session):
                session.transcript = it.talk
                runs = await self._score(lambda _: None, again=True)
                retries += self._look_after(it.talk, runs)
        runs = await self._score(self._note, again=again)
        retries += self._look_after(present, runs)
        left = len(self._waiting.keys() - {present.id})
        others = [f"{count_of(left, 'earlier conversation')} waiting for tokens"] if left else []
        self.remarks = (*(it.waits for it in runs if it.waits), *others)
        self.retry_s = min(retries, default=None)

    async def _score(self, note: Callable[[Result], None], *, again: bool) -> list[BudgetedRun]:
        """Run the commands that are due on the session's conversation."""
        settings = parse_settings(self._session.registry.settings)
        # With an interval of 0 everything is due at any time, and nothing ever becomes so.
        becomes_due = settings.memory.interval_s > 0
        commands = [] if again and not becomes_due else [MindCommand.SCORE]
        if settings.live.candidates and self._has_new_response:
            commands.append(MindCommand.SCORE_FINETUNE)
        if self.runs.keeps_tokens:
            commands.reverse()
        runs = []
        for command in commands:
            run = await self.runs.run(command)
            if command == MindCommand.SCORE and not becomes_due:
                # What was left out comes first after the next turn.
                run = replace(run, retry_s=None)
            if run.result is not None:
                note(run.result)
                if command == MindCommand.SCORE_FINETUNE and run.result.error is None:
                    self._note_searched()
            if run.waits:
                self._warn(USED_UP if run.retry_s is not None else run.waits)
            runs.append(run)
        return runs

    @property
    def _limit(self) -> int:
        return parse_settings(self._session.registry.settings).live.tokens_per_hour

    @property
    def _last_response(self) -> str | None:
        found = self._session.transcript.responses()
        return found[-1][1] if found else None

    @property
    def _has_new_response(self) -> bool:
        last = self._last_response
        return last is not None and self._searched.get(self._session.transcript.id) != last

    def _note_searched(self) -> None:
        talk, last = self._session.transcript, self._last_response
        if last is not None:
            self._searched[talk.id] = last
            self._searched.move_to_end(talk.id)
        if len(self._searched) > MOST_SEARCHED:
            self._searched.popitem(last=False)

    def _look_after(self, talk: Transcript, runs: Sequence[BudgetedRun]) -> list[float]:
        """Keep a conversation that waits, or else forget it; return when to try again."""
        retries = [it.retry_s for it in runs if it.retry_s is not None]
        if not retries:
            self._waiting.pop(talk.id, None)
            return []
        # One that waits already keeps its place.
        self._waiting[talk.id] = _Waiting(talk, self._clock.now() + min(retries), self._limit)
        if len(self._waiting) > MOST_WAITING + 1:
            self._waiting.popitem(last=False)
            self._warn(DROPPED)
        return retries


@contextmanager
def _shown_kept(session: Session) -> Iterator[None]:
    """Show, after the block, the conversation and the state that were shown before."""
    transcript, state = session.transcript, session.state
    shown = {it.name: copy.copy(getattr(state, it.name)) for it in fields(state)}
    try:
        yield
    finally:
        session.transcript = transcript
        for name, value in shown.items():
            setattr(state, name, value)
