"""The calls, tokens and seconds that a run has used."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from mindhooks import ScorerError

T = TypeVar("T")


class Stopwatch:
    """The seconds during which at least one of several blocks ran, which may overlap."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._running = 0
        self._started = 0.0

    def __enter__(self) -> None:
        if self._running == 0:
            self._started = time.monotonic()
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1
        if self._running == 0:
            self.seconds += time.monotonic() - self._started


@dataclass(slots=True)
class Usage:
    """The calls and tokens of a run so far; retries, and calls that reached no model, are left out.

    ``sent_tokens`` counts retries, too: the tokens of each attempt that may have reached a model,
    and those that it may have generated.

    ``calls`` counts prompts and ``prompt_tokens`` their tokens. ``computed_tokens`` counts those
    that ran through the model: ``None`` once an answer does not say; ``known_computed`` are those
    of answers that do. ``generated_tokens`` counts those of answers that say their ids. ``scoring``
    and ``generating`` time the scorer.
    """

    calls: int = 0
    prompt_tokens: int = 0
    computed_tokens: int | None = 0
    known_computed: int = 0
    generated_tokens: int = 0
    sent_tokens: int = 0
    scoring: Stopwatch = field(default_factory=Stopwatch)
    generating: Stopwatch = field(default_factory=Stopwatch)
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Return the wall time since the run began."""
        return time.monotonic() - self.started


async def count_sent(usage: Usage, tokens: int, ask: Callable[[], Awaitable[T]]) -> T:
    """Await one attempt of a call of so many tokens, and count these unless it reached no model."""
    has_arrived = True
    try:
        return await ask()
    except ScorerError as error:
        has_arrived = error.arrived
        raise
    finally:
        if has_arrived:
            usage.sent_tokens += tokens
