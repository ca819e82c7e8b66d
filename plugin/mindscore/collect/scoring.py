"""Scoring of the turns that wait, conversation by conversation, when they are idle."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mindhooks import MindCommand, MindhooksError, MindState, ThreadedRegistry, in_thread
from mindscore._util.clock import Clock
from mindscore._util.errors import ErrorLog, TranscriptError, format_error
from mindscore._util.text import count_of, one_line, shortened
from mindscore.collect.queue import KEPT_DAYS, CollectedTurns, WaitingTurn
from mindscore.collect.turns import RECONSTRUCTED, SENT, Record, digests, prompt_digest
from mindscore.config.settings import parse_settings
from mindscore.conversation.conversation import Conversation, Transcript
from mindscore.conversation.message import Message
from mindscore.conversation.places import typed_remarks
from mindscore.recognisers import MemoryFinder
from mindscore.session.hourly_tokens import BudgetedRuns
from mindscore.session.result import Result
from mindscore.session.session import Session

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 3600.0
"""Seconds until what failed is tried again: the shortest, and the longest after many failures."""

SHORTEST_LOOK_S, BROKEN_PAUSE_S = 0.2, 60.0
"""Seconds between two looks at what waits, and after one that failed."""

SWEEP_S = 3600.0
"""Seconds after which old turns are looked for."""

NAMED_MEMORIES = 3
"""Memories that a line about a conversation names."""

NAME_WIDTH, MOST_SENT = 60, 120

CHANGED = "the system prompt has changed since"

BY_TRACE = (
    "conversations without a name are put together by what was said, and called by their trace: "
    "set gen_ai.conversation.id or session.id on the spans to name them"
)


@dataclass(frozen=True, slots=True)
class Options:
    """The choices of an operator.

    ``memories`` are known to stand in the messages, ``anywhere``: in what users typed, too. A
    conversation without a new turn for ``idle_s`` seconds is scored.
    """

    memories: Mapping[str, str]
    anywhere: bool
    idle_s: float


class TurnScoring:
    """Scores what waits in ``turns`` with a registry's flows, in a thread of their own.

    ``say`` gets a line about each conversation that was scored.
    """

    def __init__(
        self,
        turns: CollectedTurns,
        settings: Mapping[str, Any],
        options: Options,
        say: Callable[[str], None],
    ) -> None:
        self._turns = turns
        self._options = options
        self._say = say
        self._log = ErrorLog("mindscore.collect")
        self._finder = MemoryFinder(quotes=False)
        self._swept_at = -math.inf
        self._failures = 0
        self._session = Session(Transcript(SENT, (), (), ()))
        self._runs = BudgetedRuns(self._session, Clock())
        self.registry = ThreadedRegistry(self._session, settings)
        try:
            self.registry.load_entry_points()
            self._session.listen(self.registry.registry)
        except BaseException:
            self.registry.close()
            raise

    async def run(self) -> None:
        """Score whatever is ready, until cancelled."""
        interval_s = parse_settings(self.registry.settings).memory.interval_s
        latest_s = max(self._options.idle_s, interval_s, LONGEST_PAUSE_S)
        # None arrives that is ready sooner.
        longest_s = max(self._options.idle_s, SHORTEST_LOOK_S)
        while True:
            try:
                turn = await in_thread(lambda: self._turns.next(latest_s=latest_s))
                if turn is not None:
                    await self.score(turn)
                    continue
                await self._drop_old()
                pause_s = await in_thread(self._turns.seconds_until_ready)
            except MindhooksError as error:
                self._log.warn(format_error(error))
                pause_s = BROKEN_PAUSE_S
            await asyncio.sleep(longest_s if pause_s is None else min(pause_s, longest_s))

    async def _drop_old(self) -> None:
        now = time.monotonic()
        if now < self._swept_at + SWEEP_S:
            return
        self._swept_at = now
        if dropped := await in_thread(self._turns.drop_old):
            days = f"{KEPT_DAYS:g} days"
            self._log.warn(f"{count_of(dropped, 'turn')} dropped unscored after {days}")

    async def run_once(self) -> bool:
        """Score all that waits now; return false if something could not be scored."""
        last = 0
        while (turn := await in_thread(partial(self._turns.next, after=last))) is not None:
            last = turn.id
            await self.score(turn)
        return not self._failures

    async def score(self, turn: WaitingTurn) -> None:
        """Score one conversation up to ``turn``, and remove or put off what waits of it.

        Raises:
            StoreError: the queue cannot be used.
        """
        try:
            transcript, reconstructed = await in_thread(self._transcript, turn)
        except TranscriptError as error:
            self._log.warn(f"{_named(turn)} is left out: {format_error(error)}")
            await in_thread(self._turns.remove, turn)
            return
        if not turn.named:
            self._log.warn(BY_TRACE)
        if not transcript.keys():
            sent = ", ".join(one_line(key, NAME_WIDTH) for key in turn.record.memories)
            nowhere = (
                f"; sent, but not found where memories are looked for: {shortened(sent, MOST_SENT)}"
                * bool(sent)
            )
            self._say(f"{_named(turn)}: {count_of(turn.turns, 'turn')} without memories{nowhere}")
            await in_thread(self._turns.remove, turn)
            return
        try:
            results, again_s = await self._measure(transcript)
        # A flow is anybody's code: what waits behind this is scored all the same.
        except Exception as error:
            results, again_s, failure = [], None, format_error(error)
        else:
            failure = next((it.error for it in results if it.error is not None), "")
        if failure:
            self._failures += 1
            pause_s = min(SHORTEST_PAUSE_S * 2.0**turn.attempts, LONGEST_PAUSE_S)
            self._log.warn(f"{_named(turn)} waits to be scored again: {failure}")
            await in_thread(lambda: self._turns.put_off(turn, pause_s, failed=True))
            return
        self._say("; ".join([_line(turn, transcript, results), *reconstructed]))
        for remark in self._session.remarks:
            if remark not in reconstructed:
                self._log.warn(remark)
        if again_s is None:
            await in_thread(self._turns.remove, turn)
        else:
            await in_thread(lambda: self._turns.put_off(turn, again_s, failed=False))

    async def aclose(self) -> None:
        """End what is under way, and close the flows."""
        await in_thread(self.registry.close)

    async def _measure(self, transcript: Transcript) -> tuple[list[Result], float | None]:
        """Return the findings, and the seconds after which there is more to find, if ever.

        Raises:
            MindhooksError: it could not be scored.
        """
        return await asyncio.wrap_future(self.registry.submit(self._run_flows(transcript)))

    async def _run_flows(self, transcript: Transcript) -> tuple[list[Result], float | None]:
        """Do as ``_measure``, on the registry's thread: what is due, within ``[live]``'s tokens."""
        session = self._session
        if session.transcript.id != transcript.id:
            session.state = MindState()
        session.transcript = transcript
        settings = parse_settings(self.registry.settings)
        commands = [MindCommand.SCORE]
        if settings.live.candidates:
            commands.append(MindCommand.SCORE_FINETUNE)
        if self._runs.keeps_tokens:
            commands.reverse()
        results: list[Result] = []
        again: list[float] = []
        for command in commands:
            ran = await self._runs.run(command)
            if ran.result is not None:
                results.append(ran.result)
                if any(it.status == "not-due" for it in ran.result.outcomes.values()):
                    again.append(settings.memory.interval_s)
            if ran.waits:
                self._log.warn(ran.waits)
            if ran.retry_s is not None:
                again.append(ran.retry_s)
        return results, min(again, default=None)

    def _transcript(self, turn: WaitingTurn) -> tuple[Transcript, list[str]]:
        """Return the conversation, and remarks that belong beside its scores.

        Raises:
            TranscriptError: it cannot be read.
        """
        known = {**self._options.memories, **turn.record.memories}
        self._finder.known = known
        self._finder.anywhere = frozenset(known if self._options.anywhere else ())
        found = turn.record.conversation(turn.name)
        others = self._other_prompts(turn, found.messages)
        timed = replace(
            found, messages=tuple(_timed(found, turn)), remarks=(*others, *found.remarks)
        )
        transcript = timed.transcript(SENT, self._finder)
        typed = typed_remarks(transcript, known, "--memories-anywhere")
        whole = replace(transcript, remarks=(*transcript.remarks, *typed))
        return whole, [it for it in whole.remarks if it in {*RECONSTRUCTED, *others}]

    def _other_prompts(self, turn: WaitingTurn, messages: tuple[Message, ...]) -> list[str]:
        """Return a remark on the responses that were given under another system prompt."""
        _, exact = digests(messages)
        last = prompt_digest(messages)
        count = sum(it != last for it in self._turns.prompts(turn, exact))
        if not count:
            return []
        since, on = count_of(count, "earlier response"), "it" if count == 1 else "them"
        return [f"{CHANGED} {since}: scores on {on} are of a reconstructed context"]


def _timed(conversation: Conversation, turn: WaitingTurn) -> Iterator[Message]:
    """Yield the messages; responses that were sent here have their times."""
    _, exact = digests(conversation.messages)
    ends = iter(exact)
    for message in conversation.messages:
        at_ns = turn.times.get(next(ends)) if message.role == "assistant" else None
        yield message if at_ns is None else replace(message, timestamp_ns=at_ns)


def _named(turn: WaitingTurn) -> str:
    name, record = shortened(one_line(turn.name, NAME_WIDTH), NAME_WIDTH), turn.record
    return f"{name} ({_model(record)})" if record.model else name


def _model(record: Record) -> str:
    return one_line(record.model, NAME_WIDTH)


def _line(turn: WaitingTurn, transcript: Transcript, results: list[Result]) -> str:
    """Return a line that says what was measured, the largest scores first."""
    said = [count_of(turn.turns, "turn")]
    scores = {key: it.score for result in results for key, it in result.scores.items()}
    most = sorted(scores.items(), key=lambda it: -it[1])
    shown = ", ".join(
        f"{one_line(key, NAME_WIDTH)} {score:.1f} nats" for key, score in most[:NAMED_MEMORIES]
    )
    rest = len(most) - NAMED_MEMORIES
    if shown:
        said.append(shown + (f" and {rest:,} more" if rest > 0 else ""))
    outcomes = {key: it.status for result in results for key, it in result.outcomes.items()}
    waiting = sum(status == "left-out" for status in outcomes.values())
    if waiting:
        said.append(f"{count_of(waiting, 'memory', 'memories')} waiting for tokens")
    left = len(transcript.keys()) - len(most) - waiting
    if left:
        said.append(f"{count_of(left, 'memory', 'memories')} not due, or too recent to judge")
    candidates = sum(len(it.candidates) for it in results)
    if candidates:
        said.append(count_of(candidates, "candidate"))
    model = f", by {one_line(results[-1].model, NAME_WIDTH)}" if results else ""
    return f"{_named(turn)}: {'; '.join(said)}{model}"
