"""Emission: telling listeners what a flow found, and the runs that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

from mindhooks._errors import MindhooksError
from mindhooks._implementations import (
    Arguments,
    AsyncImplementation,
    PlainImplementation,
    trace_call,
)
from mindhooks._manager import HookManager
from mindhooks._tasks import (
    OpenRun,
    TaskHandle,
    await_uncancelled,
    current_caller,
    current_scope,
    detach_context,
    find_run,
    innermost_run,
    leave_run,
)
from mindhooks._values import FinetuneStats, MemoryStats, Run

CANCELLED = "cancelled"
"""``error`` in the statistics of a run that was cancelled."""


class Emitter:
    """Tells a registry's listeners of scores, candidates and the ends of runs."""

    def __init__(self, manager: HookManager) -> None:
        self.accepts_emissions = True
        """False from the beginning of ``aclose`` on."""
        self.tells_run_ends = True
        """False once the listeners' queues are drained."""
        self._manager = manager
        self._open: list[OpenRun] = []
        # Identifies the registry in context variables, without keeping it alive.
        self._owner = object()

    async def emit(self, hook: str, arguments: Arguments) -> None:
        """Tell the listeners of ``hook``; nothing happens after ``aclose`` or in a voided run."""
        if self._is_void():
            return
        opened = find_run(self._owner)
        scope = current_scope.get()
        arguments = {**arguments, "run": None if opened is None else opened.run}
        # Neither the run nor its task ends before everybody is told.
        told = asyncio.get_running_loop().create_future()
        under_way = [it.emissions for it in (scope, opened) if it is not None]
        for emissions in under_way:
            emissions.add(told)
        try:
            await self._tell(hook, arguments, self._is_void)
        finally:
            for emissions in under_way:
                emissions.discard(told)
            told.set_result(None)

    def report(self, stats: MemoryStats | FinetuneStats) -> None:
        """Keep ``stats`` for the end of the run that calls this.

        Raises:
            MindhooksError: the caller is not part of a run, or the run has ended.
        """
        opened = find_run(self._owner)
        if opened is None:
            raise MindhooksError("report: no run is open here; use 'async with registry.run(...)'")
        if opened.ended:
            raise MindhooksError(f"report: the run of {opened.run.command!r} has ended already")
        opened.stats = stats

    @asynccontextmanager
    async def open_run(self, run: Run, arguments: Arguments) -> AsyncIterator[None]:
        """Have what the body emits belong to ``run``, and tell the listeners of its end."""
        opened = OpenRun(
            run,
            self._owner,
            innermost_run.get(),
            asyncio.current_task(),
            current_scope.get(),
            current_caller.get(),
        )
        innermost_run.set(opened)
        self._open.append(opened)
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            leave_run(opened)
            # A task, that every listener is told although the run is cancelled meanwhile;
            # detached, as the run may be voided.
            ending = asyncio.create_task(self._end(opened, arguments), context=detach_context())
            try:
                await await_uncancelled(ending)
            except asyncio.CancelledError:
                # A cancellation that comes now must not hide why the run failed.
                if failure is None or isinstance(failure, asyncio.CancelledError):
                    raise

    def cancel(self, command: str, handles: Iterable[TaskHandle]) -> Iterator[str]:
        """Cancel the open runs of ``command``; yield the names that ``Registry.cancel`` returns."""
        by_task = {handle.current: handle for handle in handles}
        for opened in [it for it in self._open if it.run.command == command and not it.ended]:
            handle = by_task.get(opened.task)
            if opened.cancel(handle):
                if opened.caller is not None:
                    yield opened.caller.plugin
                elif handle is not None:
                    yield handle.name

    async def end_runs(self, arguments: Arguments) -> None:
        """End the runs that are still open, the latest first."""
        while self._open:
            self._open[-1].ended = True
            await self._end(self._open[-1], arguments)

    async def _end(self, opened: OpenRun, arguments: Arguments) -> None:
        if opened not in self._open:
            # The registry's close has ended it.
            return
        self._open.remove(opened)
        if opened.emissions:
            await asyncio.wait(opened.emissions)
        if self.tells_run_ends:
            stats = opened.stats
            if opened.cancelled and stats is not None and stats.error is None:
                # A flow may report what it has in a ``finally``, and not know why it ended.
                stats = replace(stats, error=CANCELLED)
            arguments = {"stats": stats, **arguments, "run": opened.run}
            await self._tell("on_run_end", arguments, lambda: not self.tells_run_ends)

    async def _tell(self, hook: str, arguments: Arguments, is_void: Callable[[], bool]) -> None:
        """Tell awaited listeners, then all others; stop where the emission is void meanwhile.

        Where the caller is cancelled, all are told first.
        """
        cancellation: asyncio.CancelledError | None = None
        with trace_call(hook, arguments) as note:
            for listener in self._manager.implementations(hook):
                if isinstance(listener, AsyncImplementation) and listener.is_awaited:
                    try:
                        await await_uncancelled(asyncio.create_task(listener.tell(arguments, note)))
                    except asyncio.CancelledError as error:
                        cancellation = error
                    if is_void():
                        break
            # Anew: a plugin may have been unregistered meanwhile.
            for listener in self._manager.implementations(hook):
                # A plain listener may have voided the run itself.
                if is_void():
                    break
                if isinstance(listener, PlainImplementation):
                    listener.call(arguments, note)
                elif isinstance(listener, AsyncImplementation) and not listener.is_awaited:
                    listener.enqueue(arguments, note)
        if cancellation is not None:
            raise cancellation

    def _is_void(self) -> bool:
        scope, opened = current_scope.get(), innermost_run.get()
        if not self.accepts_emissions or (scope is not None and scope.voided):
            return True
        while opened is not None and not opened.cancelled:
            opened = opened.parent
        return opened is not None
