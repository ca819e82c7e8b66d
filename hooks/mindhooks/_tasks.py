"""Background tasks of plugins, and the runs that they are part of.

Both are known through context variables: child tasks and ``to_thread`` threads inherit the context
of the task that starts them, and belong to its run by that.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mindhooks._errors import MindhooksError, log_plugin_error
from mindhooks._specs import Trigger
from mindhooks._values import FinetuneStats, MemoryStats, Run

T = TypeVar("T")
Factory = Callable[[], Coroutine[Any, Any, object]]
Close = Callable[[], Coroutine[Any, Any, None]]
Emissions = set[asyncio.Future[None]]
"""Emissions that listeners are still being told of."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A call of a plugin: what the code in it starts is that plugin's.

    ``command`` is the one that ``on_trigger`` was called with; ``None`` in a listener.
    """

    plugin: str
    command: str | None


@dataclass(eq=False, slots=True)
class EmissionScope:
    """One coroutine run by a ``TaskHandle``: emissions from it are dropped once it is voided."""

    caller: Caller | None = None
    voided: bool = False
    emissions: Emissions = field(default_factory=set)


@dataclass(eq=False, slots=True)
class OpenRun:
    """A ``Run`` between the beginning and the end of its ``async with`` block.

    ``owner`` identifies the registry. It is not the registry itself: a task or timer that outlives
    the run keeps this object alive, and must not keep a closed registry and its plugins alive too.
    """

    run: Run
    owner: object
    parent: OpenRun | None
    task: asyncio.Task[Any] | None
    """The task that opened it, until it ends."""
    scope: EmissionScope | None
    caller: Caller | None
    stats: MemoryStats | FinetuneStats | None = None
    ended: bool = False
    cancelled: bool = False
    """True once ``Registry.cancel`` has cancelled it: what it emits is dropped."""
    emissions: Emissions = field(default_factory=set)

    def cancel(self, handle: TaskHandle | None) -> bool:
        """Void the run and cancel the task that opened it, which may be that of ``handle``.

        Returns:
            False if it was cancelled or voided before.
        """
        is_void = self.cancelled or (self.scope is not None and self.scope.voided)
        self.cancelled = True
        if is_void or self.task is None:
            return False
        # Not the task alone: a handle cancels each run once.
        return handle.void() if handle is not None else self.task.cancel()


current_scope: ContextVar[EmissionScope | None] = ContextVar("mindhooks_scope", default=None)
current_caller: ContextVar[Caller | None] = ContextVar("mindhooks_caller", default=None)
innermost_run: ContextVar[OpenRun | None] = ContextVar("mindhooks_run", default=None)


def find_run(owner: object) -> OpenRun | None:
    """Return the innermost run of the registry that ``owner`` identifies, or ``None``."""
    opened = innermost_run.get()
    while opened is not None and opened.owner is not owner:
        opened = opened.parent
    return opened


def leave_run(opened: OpenRun) -> None:
    """End ``opened``; the innermost run is then the latest that has not ended.

    Not by a token: runs that overlap may end in any order, and in another context.
    """
    opened.ended, opened.task = True, None
    innermost = innermost_run.get()
    while innermost is not None and innermost.ended:
        innermost = innermost.parent
    innermost_run.set(innermost)


def detach_context(caller: Caller | None = None) -> contextvars.Context:
    """Copy the context for code of ``caller``, which is part of no run, and voided with none."""
    context = contextvars.copy_context()
    context.run(current_scope.set, None)
    context.run(innermost_run.set, None)
    context.run(current_caller.set, caller)
    return context


def copy_settings(value: Any) -> Any:
    """Copy parsed TOML: every mapping as a dict, every sequence as a list."""
    if isinstance(value, Mapping):
        return {key: copy_settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copy_settings(item) for item in value]
    return value


class TaskHandle:
    """Owns one in-flight asyncio task.

    A plugin triggers it from ``on_trigger`` and returns what it answers. ``factory()`` returns the
    coroutine to run; it is called when the run begins, so never for a run that is replaced first.
    """

    def __init__(self, name: str = "task") -> None:
        self.name = name
        self.error: BaseException | None = None
        """The exception of the last run that failed; logged when it happened."""
        self._scope: EmissionScope | None = None
        self.current: asyncio.Task[None] | None = None
        """The task of the run in flight."""
        self._queued: tuple[Factory, Caller | None] | None = None
        self._closed = False

    @property
    def running(self) -> bool:
        """True while a run is in flight, still unwinds, or is queued."""
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
        self._start(factory, current_caller.get())
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
        caller = current_caller.get()
        if self.current is None:
            self._start(factory, caller)
            return Trigger.STARTED
        self._queued = factory, caller
        self.void()
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
        self.void()
        await asyncio.wait({task})

    def cancel_command(self, command: str) -> list[str]:
        """Void and cancel the run in flight, and drop a queued one, if ``command`` triggered it.

        Returns:
            The names of the plugins that triggered what was cancelled now.
        """
        running = None if self._scope is None else self._scope.caller
        queued = None if self._queued is None else self._queued[1]
        cancelled = []
        if running is not None and running.command == command and self.void():
            cancelled.append(running.plugin)
        if queued is not None and queued.command == command:
            self._queued = None
            cancelled.append(queued.plugin)
        return cancelled

    def void(self) -> bool:
        """Void and cancel the run in flight; return false if there is none, or it was before."""
        if self._scope is None or self.current is None or self._scope.voided:
            return False
        self._scope.voided = True
        self.current.cancel()
        return True

    def shut(self) -> None:
        """Void and cancel the run in flight without waiting; triggers are refused from now on."""
        self._closed = True
        self._queued = None
        self.void()

    def _require_open(self) -> None:
        if self._closed:
            raise MindhooksError(f"task {self.name!r}: the registry is closed")

    def _start(self, factory: Factory, caller: Caller | None) -> None:
        self._scope = EmissionScope(caller)
        self.current = asyncio.create_task(self._drive(self._scope, factory), name=self.name)
        self.current.add_done_callback(self._ended)

    async def _drive(self, scope: EmissionScope, factory: Factory) -> None:
        current_scope.set(scope)
        # Of a run that was queued, the context is that of the one before it.
        current_caller.set(scope.caller)
        # What triggers a run is not part of it, nor is it part of what triggers it.
        innermost_run.set(None)
        try:
            await factory()
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                scope.voided = True
            else:
                self._failed(error)
        except KeyboardInterrupt:
            raise
        # Not only Exception: a SystemExit that leaves a task stops the host's event loop.
        except BaseException as error:
            self._failed(error)
        while scope.emissions:
            with suppress(asyncio.CancelledError):
                await await_uncancelled(next(iter(scope.emissions)))

    def _failed(self, error: BaseException) -> None:
        self.error = error
        log_plugin_error(f"task {self.name!r} failed", error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        mark_retrieved(task)
        queued, self._queued = self._queued, None
        self._scope = self.current = None
        if queued is not None:
            self._start(*queued)


async def in_thread(fn: Callable[..., T], /, *args: Any) -> T:
    """Await ``fn(*args)`` in a thread; when cancelled, raise only once the thread has ended.

    A run must not end before its threads do: what it holds open for them would be closed under
    them, and the next run would start beside them. A call that still waits for a free thread when
    it is cancelled is not made.
    """
    wanted = True

    def call() -> Any:
        try:
            return fn(*args) if wanted else None
        except StopIteration as error:
            # A future cannot hold it, and would never be done.
            raise RuntimeError("the function raised StopIteration") from error

    # A future, not a task as with to_thread: a SystemExit raised in a task stops the event loop.
    run = contextvars.copy_context().run
    future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(None, run, call)
    try:
        await asyncio.wait({future})
    except asyncio.CancelledError:
        wanted = False
        with suppress(asyncio.CancelledError):
            await await_uncancelled(future)
        raise
    return future.result()


async def await_uncancelled(future: asyncio.Future[Any]) -> None:
    """Await the end of ``future`` even when cancelled meanwhile; raise the cancellation then.

    What ``future`` raises is not raised here.
    """
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancellation = error
    mark_retrieved(future)
    if cancellation is not None:
        raise cancellation


def mark_retrieved(future: asyncio.Future[Any]) -> None:
    """Keep asyncio from reporting the exception of ``future`` as lost.

    A KeyboardInterrupt, for one, was raised out of the loop already.
    """
    if not future.cancelled():
        future.exception()


def is_being_cancelled() -> bool:
    """Return whether the current task was cancelled; else a CancelledError in it is a stray."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Closer:
    """Closes one thing after another for a limited time; a call that does not end is left behind.

    Such a call is cancelled and logged.
    """

    def __init__(self) -> None:
        # Asyncio itself holds tasks only weakly.
        self._left_behind: set[asyncio.Task[None]] = set()

    async def close_all(self, closings: Sequence[tuple[str, Close]], limit_s: float) -> None:
        """Await each of ``closings``, named for the log, for at most ``limit_s`` altogether."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        for number, (name, close) in enumerate(closings):
            # A fair share of what is left: one that hangs must not cost the others their turn.
            share_s = (deadline - loop.time()) / (len(closings) - number)
            task = asyncio.create_task(close())
            task.add_done_callback(mark_retrieved)
            await asyncio.wait({task}, timeout=share_s)
            if not task.done():
                log_plugin_error(name, TimeoutError(f"not done after {share_s:.3g} s"))
                task.cancel()
                self._left_behind.add(task)
                task.add_done_callback(self._left_behind.discard)


async def close_one(name: str, closable: object) -> None:
    """Await the ``aclose`` of ``closable``, if it has one; what it raises is logged."""
    try:
        close = getattr(closable, "aclose", None)
        if close is not None:
            await close()
    except KeyboardInterrupt:
        raise
    # Not only Exception: a SystemExit that leaves a task stops the host's event loop.
    except BaseException as error:
        if not is_being_cancelled():
            log_plugin_error(name, error)


def _require_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise MindhooksError("a task needs a running event loop: trigger it from one") from None
