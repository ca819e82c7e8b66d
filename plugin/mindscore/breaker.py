"""A circuit breaker: a run ends when call after call fails for a reason that is not its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mindhooks import ScorerError, ScorerUnavailable


class BreakerError(ScorerError):
    """Too many calls in a row have failed: none is made any more."""


class Breaker:
    """Counts the calls of one run that failed with ``ScorerUnavailable``, one after another.

    After ``most`` of them the breaker is open. A call that is answered, be it with a refusal, shows
    that there is somebody: the count begins anew.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._failures = 0
        self._opened: BreakerError | None = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call, for the scorer to have its attempts in.

        Raises:
            BreakerError: the breaker is open, or this failure opens it; the text has the cause.
        """
        if self._opened is not None:
            raise self._opened
        try:
            yield
        except ScorerUnavailable as error:
            self._failures += 1
            if self._failures < self._most:
                raise
            self._opened = BreakerError(
                f"stopped: of the last {self._most} calls each failed after all its attempts "
                f"(server.breaker_failures): {error}"
            )
            raise self._opened from error
        except ScorerError:
            self._failures = 0
            raise
        else:
            self._failures = 0
