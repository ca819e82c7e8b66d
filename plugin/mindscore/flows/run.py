"""One run of a flow: read the settings and the conversation, keep count, report the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mindhooks import (
    Context,
    FinetuneStats,
    MemoryStats,
    Mind,
    MindhooksError,
    Registry,
    Run,
    Scorer,
    ScorerCapabilities,
)
from mindscore._util.aio import Pace
from mindscore._util.errors import format_error
from mindscore.config.settings import Settings, parse_settings
from mindscore.flows.recorder import (
    CANCELLED,
    StoreFailures,
    run_speeds,
    run_tokens,
    snapshots,
    store_failures,
)
from mindscore.flows.seen import ContextFacts, source_of
from mindscore.measure.cached_scorer import CachedScorer, shared_cache
from mindscore.measure.leave_one_out import LeaveOneOut, NoiseFloor
from mindscore.measure.retry import Retry
from mindscore.measure.usage import Usage
from mindscore.store import Speed


@dataclass(frozen=True, slots=True)
class ReservedTokens:
    """The tokens of an hour that a host has reserved for its next run; see ``registry.stash``.

    ``narrow`` gives back all but a number of them.
    """

    narrow: Callable[[int], Awaitable[None]]


class FlowRun:
    """A run of a flow over a mind's conversation.

    A flow derives from it: ``perform`` is its work, ``make_stats`` its statistics. The attributes
    are read once, when the run begins.
    """

    run: Run
    settings = Settings()
    context: Context
    scorer: Scorer
    cached: CachedScorer
    retry: Retry
    noise: NoiseFloor
    compared: LeaveOneOut
    failures: StoreFailures

    def __init__(self, command: str, mind: Mind, registry: Registry) -> None:
        self.command = command
        self.mind = mind
        self.registry = registry
        self.usage = Usage()
        self.usages = [self.usage]
        self.pace = Pace()

    async def carry_out(self) -> None:
        """Perform the run and report its statistics, however it ends."""
        begun = ""
        try:
            async with self.registry.run(self.command) as self.run:
                begun = self.run.id
                self.failures = store_failures(self.registry, self.run)
                with report_on_exit(self._report):
                    try:
                        self.begin()
                        await self.perform()
                        run_speeds(self.registry)[begun] = self._speed()
                    finally:
                        run_tokens(self.registry)[begun] = self.sent_tokens
                        # Before the report: what is still being stored may yet be.
                        await self.failures.wait()
        # Not before: the recorder needs them when the run ends.
        finally:
            snapshots(self.registry).pop(begun, None)
            run_speeds(self.registry).pop(begun, None)
            run_tokens(self.registry).pop(begun, None)

    def begin(self) -> None:
        """Show in the mind's state that the run has begun."""
        raise NotImplementedError

    async def perform(self) -> None:
        """Do the work of the flow."""
        raise NotImplementedError

    def make_stats(self, error: str | None) -> MemoryStats | FinetuneStats:
        """Return the run's statistics, and show them in the mind's state."""
        raise NotImplementedError

    async def read(self, *, tokens: bool = False) -> None:
        """Read settings, scorer and conversation; ``tokens``: keep each token's log-probability.

        Raises:
            MindhooksError: the settings are wrong, or the scorer cannot be built.
        """
        self.settings = parse_settings(self.run.settings)
        self.scorer = await self.registry.scorer()
        self._loading_s = ScorerCapabilities.of(self.scorer).loading_s
        self.context = await self.mind.context()
        snapshots(self.registry)[self.run.id] = ContextFacts(self.context, source_of(self.mind))
        cache = shared_cache(self.registry, self.command, self.scorer)
        self.retry = Retry(self.settings.server)
        self.cached = CachedScorer(self.scorer, self.usage, cache, self.retry, tokens=tokens)
        self.noise = NoiseFloor(self.cached, self.settings.memory.noise_repeats)
        self.compared = LeaveOneOut(self.cached, self.context, self.noise)
        # A host's session says beside the result what could not be measured.
        self.registry.stash[LeaveOneOut] = self.compared
        # A pass over many conversations goes on with another server if this one is down.
        self.registry.stash[Retry] = self.retry

    async def narrow(self, tokens: int) -> None:
        """Give back what a host has reserved for the run beyond ``tokens``: it needs no more."""
        reserved: ReservedTokens | None = self.registry.stash.get(ReservedTokens)
        if reserved is not None:
            await reserved.narrow(tokens)

    @property
    def sent_tokens(self) -> int:
        """The tokens of all that was sent so far, the self-test's and those of retries, too."""
        return sum(it.sent_tokens for it in self.usages)

    def _speed(self) -> Speed:
        """Return what the calls took; the first of a process may have loaded the model."""
        usage, capabilities = self.usage, ScorerCapabilities.of(self.scorer)
        loading_s = capabilities.loading_s
        if loading_s == self._loading_s:
            loading_s = None
        return Speed(
            server=self.settings.server.place,
            model=self.run.model,
            device=capabilities.device,
            prompt_tokens=usage.prompt_tokens,
            computed_tokens=usage.computed_tokens,
            scoring_s=max(0.0, usage.scoring.seconds - (loading_s or 0.0)),
            generated_tokens=usage.generated_tokens,
            generating_s=usage.generating.seconds,
            loading_s=loading_s,
            measured_at=time.time(),
        )

    def _report(self, error: str | None) -> None:
        self.registry.report(self.make_stats(error))
        self.mind.changed()


@contextmanager
def report_on_exit(report: Callable[[str | None], None]) -> Iterator[None]:
    """Run the body, then call ``report`` with its failure in words, or ``None``.

    A ``MindhooksError`` is meant for the operator and ends here; any other exception goes on to the
    task handle, which logs it.
    """
    error: str | None = None
    try:
        yield
    except asyncio.CancelledError:
        error = CANCELLED
        raise
    except MindhooksError as failure:
        error = format_error(failure)
    except BaseException as failure:
        error = format_error(failure)
        raise
    finally:
        report(error)
