"""One background task of a plugin, with the trigger semantics it picks."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from mindhooks._complaints import complain
from mindhooks._errors import MindhooksError
from mindhooks._specs import Trigger

T = TypeVar("T")
Factory = Callable[[], Coroutine[Any, Any, object]]


class Run:
    """One run of a ``TaskHandle``: whether what it emits still counts.

    Found through a context variable, so that child tasks and threads of the run, which inherit its
    context, belong to it too.
    """

    def __init__(self) -> None:
        self.voided = False
        self.deliveries: set[asyncio.Task[None]] = set()
        """Emissions that an awaited listener is busy with; the run ends after them."""


current_run: contextvars.ContextVar[Run | None] = contextvars.ContextVar(
    "mindhooks_run", default=None
)


class TaskHandle:
    """Owns one in-flight asyncio task.

    A plugin triggers it from ``on_trigger`` and returns what it answers. ``factory()`` returns the
    coroutine to run; it is called when the run begins, so never for a run that is replaced first.
    """

    def __init__(self, name: str = "task") -> None:
        self.name = name
        self.error: BaseException | None = None
        """What the last run that failed raised; logged when it happened."""
        self._run: Run | None = None
        self.current: asyncio.Task[None] | None = None
        """The task of the run in flight."""
        self._queued: Factory | None = None
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether a run is in flight, still unwinds, or is queued."""
        return self.current is not None

    def trigger_if_idle(self, factory: Factory) -> Trigger:
        """Start a run, unless one runs or still unwinds.

        Raises:
            MindhooksError: there is no running event loop, or the handle is closed.
        """
        _require_loop()
        if self.current is not None:
            return Trigger.BUSY
        self._require_open()
        self._start(factory)
        return Trigger.STARTED

    def trigger(self, factory: Factory) -> Trigger:
        """Start a run; one in flight is voided and cancelled, and the new one starts at its end.

        The run in flight is cancelled once, however often this is called while it unwinds: later
        triggers only replace the queued factory.

        Raises:
            MindhooksError: there is no running event loop, or the handle is closed.
        """
        _require_loop()
        self._require_open()
        if self.current is None:
            self._start(factory)
            return Trigger.STARTED
        self._queued = factory
        self._void()
        return Trigger.RESTARTED

    async def wait(self) -> None:
        """Wait until no run is in flight or queued; what a run raises is not raised here."""
        while self.current is not None:
            await asyncio.wait({self.current})

    async def cancel(self) -> None:
        """Void and cancel the run in flight, drop a queued one, and wait for the end."""
        task = self.current
        if task is None:
            return
        self._queued = None
        self._void()
        await asyncio.wait({task})

    def shut(self) -> None:
        """Void and cancel the run in flight without waiting; triggers are refused from now on."""
        self._closed = True
        self._queued = None
        self._void()

    def _require_open(self) -> None:
        if self._closed:
            raise MindhooksError(f"task {self.name!r}: the registry is closed")

    def _void(self) -> None:
        if self._run is not None and self.current is not None and not self._run.voided:
            self._run.voided = True
            self.current.cancel()

    def _start(self, factory: Factory) -> None:
        self._run = Run()
        self.current = asyncio.create_task(self._drive(self._run, factory), name=self.name)
        self.current.add_done_callback(self._ended)

    async def _drive(self, run: Run, factory: Factory) -> None:
        current_run.set(run)
        try:
            await factory()
        except asyncio.CancelledError as error:
            if being_cancelled():
                run.voided = True
            else:
                self._failed(error)
        except KeyboardInterrupt:
            raise
        # Not only Exception: a SystemExit that leaves a task stops the host's event loop.
        except BaseException as error:
            self._failed(error)
        while run.deliveries:
            delivery = next(iter(run.deliveries))
            with suppress(asyncio.CancelledError):
                await outlast(delivery)
            # One that is done may not have been called back yet, and awaiting it turns no loop.
            run.deliveries.discard(delivery)

    def _failed(self, error: BaseException) -> None:
        self.error = error
        complain(f"task {self.name!r} failed", error)

    def _ended(self, _: asyncio.Task[None]) -> None:
        factory, self._queued = self._queued, None
        self._run = self.current = None
        if factory is not None:
            self._start(factory)


async def in_thread(fn: Callable[..., T], /, *args: Any) -> T:
    """``asyncio.to_thread`` that, when cancelled, raises only once the thread has ended.

    A run must not end before its threads do: what it holds open for them would be closed under
    them, and the next run would start beside them. A call that still waits for a free thread when
    it is cancelled is not made.
    """
    wanted = True

    def call() -> Any:
        return fn(*args) if wanted else None

    # A future, not a task as with to_thread: a SystemExit raised in a task stops the event loop.
    run = contextvars.copy_context().run
    future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(None, run, call)
    try:
        await asyncio.wait({future})
    except asyncio.CancelledError:
        wanted = False
        with suppress(BaseException):
            await outlast(future)
        raise
    return future.result()


async def outlast(future: asyncio.Future[T]) -> T:
    """Await ``future`` to its end even when cancelled meanwhile; raise the cancellation then."""
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        if not future.cancelled():
            # Retrieved, or asyncio reports it as lost.
            future.exception()
        raise cancellation
    return future.result()


def being_cancelled() -> bool:
    """Whether somebody asked the current task to end; else a CancelledError in it is a stray."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _require_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise MindhooksError("a task needs a running event loop: trigger it from one") from None
