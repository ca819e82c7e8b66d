"""Prompts of many callers, sent in lists: for servers whose requests take more than one."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mindhooks import RangeScore, ScorerError, Scores, WirePrompt
from mindscore.http.client import RefusedError, RetriableError

LIST_TOKENS = 65_536
"""Tokens that a list of prompts holds at most, however many prompts that is."""

# Who asks, and for which model, is wrong with these: each prompt alone would be refused too.
_OF_ALL = frozenset({401, 403, 404})


class Answer(NamedTuple):
    """What a server said of one prompt; ``computed`` is ``None`` where it doesn't say."""

    scores: list[RangeScore]
    computed: int | None


def to_scores(answers: Sequence[Answer]) -> list[list[RangeScore]]:
    """The answers of several prompts as a scorer's, with the tokens computed where all say so."""
    scores = [answer.scores for answer in answers]
    computed = [answer.computed for answer in answers if answer.computed is not None]
    return Scores(scores, sum(computed)) if len(computed) == len(answers) else scores


Send = Callable[[Sequence[WirePrompt]], Awaitable[Sequence[Answer]]]


@dataclass(eq=False, slots=True)
class _Waiting:
    """A prompt and whom its answer is for; ``alone``: a list that it was in has failed."""

    prompt: WirePrompt
    answer: asyncio.Future[Answer]
    alone: bool = False


@dataclass(eq=False, slots=True)
class _Request:
    """A list under way."""

    entries: list[_Waiting]
    task: asyncio.Task[None] | None = field(default=None)

    def end_if_unwanted(self) -> None:
        if self.task is not None and all(it.answer.done() for it in self.entries):
            self.task.cancel()


class Batcher:
    """Gathers prompts and hands them to ``send`` in lists, ``slots`` lists at a time.

    What is asked for in one turn of the event loop is spread evenly over the free slots: there are
    lists of more than one only where prompts outnumber slots, at most ``size`` and about
    ``LIST_TOKENS`` tokens each. A list that the server refuses is sent again prompt by prompt, so
    that one bad prompt fails alone. A list that nobody waits for any more is cancelled.
    """

    def __init__(self, send: Send, *, size: int, slots: int) -> None:
        self.size = size
        self._send = send
        self._slots = slots
        self._pending: deque[_Waiting] = deque()
        self._under_way: set[_Request] = set()
        self._wakes = False

    def ask(self, prompt: WirePrompt) -> asyncio.Future[Answer]:
        """The answer to come; cancel the future when it is not wanted any more."""
        loop = asyncio.get_running_loop()
        entry = _Waiting(prompt, loop.create_future())
        self._pending.append(entry)
        self._wake()
        return entry.answer

    async def aclose(self) -> None:
        """Cancel what is pending and under way, and wait for its end."""
        pending, self._pending = self._pending, deque()
        requests = list(self._under_way)
        for entry in [*pending, *(entry for request in requests for entry in request.entries)]:
            _fail(entry, ScorerError("the scorer was closed while it was being asked"))
        tasks = [request.task for request in requests if request.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wake(self) -> None:
        # Not at once: others may ask in this turn of the loop.
        if not self._wakes:
            self._wakes = True
            asyncio.get_running_loop().call_soon(self._fill)

    def _fill(self) -> None:
        self._wakes = False
        self._pending = deque(it for it in self._pending if not it.answer.done())
        while self._pending and (free := self._slots - len(self._under_way)) > 0:
            self._start(_Request(self._take(math.ceil(len(self._pending) / free))))

    def _take(self, share: int) -> list[_Waiting]:
        taken = [self._pending.popleft()]
        tokens = len(taken[0].prompt.tokens)
        while self._pending and len(taken) < min(share, self.size):
            following = self._pending[0]
            tokens += len(following.prompt.tokens)
            if taken[0].alone or following.alone or tokens > LIST_TOKENS:
                break
            taken.append(self._pending.popleft())
        return taken

    def _start(self, request: _Request) -> None:
        self._under_way.add(request)
        request.task = asyncio.create_task(self._run(request))
        # Not in the task: one that is cancelled before it begins runs no line of it.
        request.task.add_done_callback(lambda _: self._ended(request))
        for entry in request.entries:
            entry.answer.add_done_callback(lambda _: request.end_if_unwanted())

    async def _run(self, request: _Request) -> None:
        entries = request.entries
        try:
            answers = await self._send([entry.prompt for entry in entries])
        except ScorerError as error:
            if len(entries) > 1 and _may_be_one_prompts_fault(error):
                self._requeue(entries)
            else:
                for entry in entries:
                    _fail(entry, error)
        except Exception as error:
            for entry in entries:
                _fail(entry, error)
        else:
            for entry, answer in zip(entries, answers, strict=True):
                if not entry.answer.done():
                    entry.answer.set_result(answer)

    def _requeue(self, entries: Sequence[_Waiting]) -> None:
        again = [_Waiting(it.prompt, it.answer, alone=True) for it in entries]
        self._pending.extendleft(reversed(again))

    def _ended(self, request: _Request) -> None:
        self._under_way.discard(request)
        if request.task is not None and request.task.cancelled():
            for entry in request.entries:
                entry.answer.cancel()
        # Whoever is told of its end may ask again at once.
        self._wake()


def _may_be_one_prompts_fault(error: ScorerError) -> bool:
    if isinstance(error, RefusedError):
        return error.status not in _OF_ALL
    return not isinstance(error, RetriableError)


def _fail(entry: _Waiting, error: Exception) -> None:
    if not entry.answer.done():
        entry.answer.set_exception(error)
