"""Repeat calls that fail for a reason that may pass, and stop a run whose scorer is down."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from mindhooks import ScorerError, ScorerUnavailable
from mindscore.config.settings import ServerSettings

T = TypeVar("T")
P = ParamSpec("P")

_backoff = wait_random_exponential(multiplier=0.5, max=30)


class GivenUpError(ScorerUnavailable):
    """A call failed in every attempt, or took longer than ``server.deadline_s``.

    ``last`` is what the last attempt raised; ``None`` where the deadline ended the call.
    """

    def __init__(self, message: str, last: ScorerUnavailable | None) -> None:
        super().__init__(message)
        self.last = last


class BreakerError(ScorerError):
    """Too many calls in a row have failed, so the run makes no more."""


class Breaker:
    """Counts the calls of one run that failed with ``ScorerUnavailable``, one after another.

    After ``limit`` of them it is open. An answer or any other ``ScorerError`` shows that the server
    is up: the count begins anew.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failures = 0
        self._opened: BreakerError | None = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count the outcome of one call, which the body makes with all its attempts.

        Raises:
            BreakerError: the breaker is open, or this failure opens it; the text has the cause.
        """
        self.require_closed()
        try:
            yield
        except ScorerUnavailable as error:
            self._failures += 1
            if self._failures < self._limit:
                raise
            self._opened = BreakerError(
                f"stopped: {self._limit} calls in a row have failed (server.breaker_failures); "
                f"the last: {error}"
            )
            raise self._opened from error
        except ScorerError:
            self._failures = 0
            raise
        else:
            self._failures = 0

    @property
    def is_failing(self) -> bool:
        """True if the last call has failed, or too many in a row have."""
        return self._failures > 0

    def require_closed(self) -> None:
        """Raise ``BreakerError`` if it is open."""
        if self._opened is not None:
            raise self._opened


class Retry:
    """Makes a run's calls of a scorer, whoever's it is: ``await retry.wrap(scorer.score)(…)``.

    It repeats them as ``with_retries`` does, and has a ``Breaker`` for them all.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._breaker = Breaker(settings.breaker_failures)

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call, again where that may help, and return its result.

        ``call`` makes one attempt.

        Raises:
            GivenUpError: no attempt succeeded; the text has the limit and the last error.
            BreakerError: too many calls in a row have failed.
            Exception: whatever else ``call`` raises.
        """
        with self._breaker.call():
            return await with_retries(call, self._settings)

    def wrap(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Return ``function``, such as ``scorer.tokenize``, with its calls made through this."""

        async def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self(lambda: awaited(function, *args, **kwargs))

        return repeated

    @property
    def is_failing(self) -> bool:
        """True if the last call has failed, or too many in a row have: the server may be down."""
        return self._breaker.is_failing

    def require_closed(self) -> None:
        """Raise ``BreakerError`` if too many calls in a row have failed."""
        self._breaker.require_closed()


async def awaited(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Await a scorer's method, and return its result.

    Raises:
        ScorerError: it is a plain function, or returns a coroutine of its own; the text names it.
        Exception: whatever else it raises.
    """
    result: Any = function(*args, **kwargs)
    wrong = "is a plain function, and is awaited: define it with async def"
    if inspect.isawaitable(result):
        result = await result
        if not inspect.isawaitable(result):
            return result  # type: ignore[no-any-return]
        wrong = "returns a coroutine: it must await that itself"
    if inspect.iscoroutine(result):
        result.close()
    name = getattr(function, "__qualname__", type(function).__name__)
    raise ScorerError(f"the scorer's {name} {wrong}")


async def with_retries(
    call: Callable[[], Awaitable[T]],
    settings: ServerSettings,
    may_repeat: Callable[[ScorerUnavailable], bool] = lambda _: True,
) -> T:
    """Return what ``call`` returns, made again where it raises ``ScorerUnavailable``.

    There are at most ``server.max_attempts`` attempts within ``server.deadline_s``, with
    exponential, jittered pauses, or those that ``retry_after`` of the errors asks for. The call
    fails at once on any other exception, and on an error for which ``may_repeat`` is false.

    Raises:
        GivenUpError: no attempt succeeded; the text has the limit and the last error.
        Exception: whatever else ``call`` raises.
    """

    async def attempt() -> T:
        # tenacity awaits coroutine functions only, and not a lambda's result.
        return await call()

    failures: list[BaseException] = []
    deadline = time.monotonic() + settings.deadline_s
    attempts = AsyncRetrying(
        stop=stop_after_attempt(settings.max_attempts),
        wait=lambda state: _pause(state, deadline - time.monotonic()),
        retry=retry_if_exception(
            lambda error: isinstance(error, ScorerUnavailable) and may_repeat(error)
        ),
        before_sleep=lambda state: failures.append(_failure(state)),
        reraise=True,
    )
    try:
        async with asyncio.timeout(settings.deadline_s) as limit:
            return await attempts(attempt)
    except ScorerUnavailable as error:
        if not failures:
            raise
        tried = f"given up after {len(failures) + 1} attempts (server.max_attempts)"
        raise GivenUpError(f"{error}; {tried}", error) from error
    except TimeoutError:
        # A scorer may raise one of its own.
        if not limit.expired():
            raise
        where = f"{settings.base_url}: " if settings.base_url else ""
        last = f"; the last attempt: {failures[-1]}" if failures else ": no answer"
        raise GivenUpError(
            f"{where}given up after {settings.deadline_s:g} s (server.deadline_s){last}", None
        ) from None


def _pause(state: RetryCallState, left_s: float) -> float:
    """Return the seconds to the next attempt, when ``left_s`` are left to the deadline."""
    error = _failure(state)
    asked = error.retry_after if isinstance(error, ScorerUnavailable) else None
    pause_s = _backoff(state) if asked is None else asked
    # A server that asks for more than is left may answer sooner nevertheless.
    return pause_s if pause_s < left_s else max(0.0, left_s / 2)


def _failure(state: RetryCallState) -> BaseException:
    """Return what the attempt that has just ended raised."""
    error = state.outcome.exception() if state.outcome else None
    return error or ScorerError("no attempt was made")
