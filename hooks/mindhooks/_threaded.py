"""A registry for hosts that have no event loop."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from typing import Any, ParamSpec, TypeVar

from mindhooks._errors import MindhooksError, log, log_plugin_error
from mindhooks._manager import PluginInfo
from mindhooks._protocols import Scorer
from mindhooks._registry import CANCEL_GRACE_S, DEFAULT_LISTENER_TIMEOUT_S, Registry
from mindhooks._specs import Trigger
from mindhooks._tasks import mark_retrieved
from mindhooks._values import Mind

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_TIMEOUT_S = 5.0
"""A host waits so long for the registry's thread, which a plugin may hold up."""

EXIT_TIMEOUT_S = 10.0
"""A process that ends waits so long for the registries that are still open."""

CLOSED = "the registry is closed"


class ThreadedRegistry:
    """A ``Registry`` on an event loop in a thread of its own.

    For hosts without an event loop, and for those whose loop no plugin may hold up. Every method
    may be called from any thread. The mind, the plugins and listeners are called on the registry's
    thread: what they share with the host must bear that. The thread starts at once. Used as a
    context manager, or closed by ``close()``; one that is still open when the process ends is
    closed then, within some 20 seconds; calls that compute may take a minute more.

    A process that was forked has no thread of it: there every method raises ``MindhooksError``,
    and ``close()`` does nothing.

    Raises:
        MindhooksError: ``settings`` are wrong, as with ``Registry``.
    """

    def __init__(
        self, mind: Mind, settings: Mapping[str, Any], *, scorer: Scorer | None = None
    ) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._pool = _DaemonPool()
        self._thread = threading.Thread(target=self._serve, name="mindhooks", daemon=True)
        # Reentrant, as a signal's handler may close what its thread is just using.
        self._closing = threading.RLock()
        self._gate = threading.RLock()
        """Held while something is handed to the loop, or the loop is told to end: never longer."""
        self._refuses = False
        self._stopped = False
        self._ended: Future[None] | None = None
        self._answers: set[Future[Any]] = set()
        """The futures that somebody may wait for."""
        self._thread.start()
        try:
            self.registry = self._call(lambda: Registry(mind, settings, scorer=scorer), None)
        except BaseException:
            self._stop()
            raise
        _register_exit()
        _open.add(self)

    registry: Registry
    """The registry itself; its methods are for the registry's thread only."""

    def __enter__(self) -> ThreadedRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """True if calls are refused: it is closed, or this process was forked from its own."""
        return self._refuses or self._process != os.getpid()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The registry's settings, as ``Registry.settings``."""
        return self.registry.settings

    @settings.setter
    def settings(self, settings: Mapping[str, Any]) -> None:
        self._call(lambda: setattr(self.registry, "settings", settings), ANSWER_TIMEOUT_S)

    def load_entry_points(self) -> None:
        """Load plugins as ``Registry.load_entry_points`` does; return when they are loaded."""
        self._call(self.registry.load_entry_points, None)

    def register(self, plugin: object, name: str | None = None) -> None:
        """Register a plugin as ``Registry.register`` does."""
        self._call(lambda: self.registry.register(plugin, name), None)

    def plugins(self) -> list[PluginInfo]:
        """Return what ``Registry.plugins`` does."""
        return self.registry.plugins()

    def dispatch(self, command: str) -> dict[str, Trigger]:
        """Dispatch a command as ``Registry.dispatch`` does.

        Raises:
            UnhandledCommand: no plugin took the command.
            MindhooksError: the registry is closed, or a plugin holds up its thread for seconds.
        """
        return self._call(lambda: self.registry.dispatch(command), ANSWER_TIMEOUT_S)

    def cancel(self, command: str) -> list[str]:
        """Cancel every run of a command as ``Registry.cancel`` does.

        Raises:
            MindhooksError: the registry is closed, or a plugin holds up its thread for seconds.
        """
        return self._call(lambda: self.registry.cancel(command), ANSWER_TIMEOUT_S)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the registry's thread; its future is for any other thread.

        When the registry is closed first, the future raises ``MindhooksError``.

        Raises:
            MindhooksError: the registry is closed.
        """
        running = self._end_with_registry(work)
        try:
            return self._hand_over(lambda: asyncio.run_coroutine_threadsafe(running, self._loop))
        except MindhooksError:
            running.close()
            work.close()
            raise

    def task_errors(self) -> dict[str, BaseException]:
        """Return what ``Registry.task_errors`` does."""
        return self._call(self.registry.task_errors, ANSWER_TIMEOUT_S)

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until no task runs and every listener's queue is empty.

        Args:
            timeout_s: wait for at most so many seconds; ``None``: as long as it takes.

        Returns:
            Whether the registry is idle.

        Raises:
            MindhooksError: the registry is closed, or this is its own thread.
        """
        if threading.current_thread() is self._thread:
            raise MindhooksError("the registry's own thread cannot wait for it")
        idle = self.submit(self.registry.wait_idle())
        limit_s = None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)
        try:
            if not wait([idle], limit_s).done:
                return False
            idle.result()
            return True
        finally:
            idle.cancel()

    def close(self) -> None:
        """Close the registry and its thread, within twice ``listener_timeout_s`` and some seconds.

        The threads of plugins' calls are waited for too, for seconds; what is left then is waited
        for once more when the process ends. Twice is fine. From the registry's own thread it
        returns at once, and the end follows.
        """
        if self._process != os.getpid():
            return
        if threading.current_thread() is self._thread:
            threading.Thread(target=self.close, name="mindhooks close", daemon=True).start()
            return
        plugins = self.registry.settings.get("plugins", {})
        limit_s = plugins.get("listener_timeout_s", DEFAULT_LISTENER_TIMEOUT_S)
        self._end(2 * limit_s + ANSWER_TIMEOUT_S)

    def begin_close(self) -> Future[None]:
        """Refuse further calls, and have the registry close itself."""
        with self._gate:
            self._refuses = True
            if self._ended is None:
                closing = self.registry.aclose()
                self._ended = asyncio.run_coroutine_threadsafe(closing, self._loop)
            return self._ended

    def _end(self, limit_s: float) -> None:
        limit_s = min(limit_s, threading.TIMEOUT_MAX)
        if self._closing.acquire(timeout=limit_s):
            try:
                if not self._stopped:
                    wait([self.begin_close()], limit_s)
                    self._stop()
            finally:
                self._closing.release()

    def _call(self, function: Callable[[], T], timeout_s: float | None) -> T:
        """Return what ``function`` returns, or raise what it raises, on the registry's thread."""
        if threading.current_thread() is self._thread:
            return function()
        answer: Future[T] = Future()

        def answer_call() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(function())
                except BaseException as error:
                    answer.set_exception(error)

        def ask() -> Future[T]:
            self._loop.call_soon_threadsafe(answer_call)
            return answer

        self._hand_over(ask)
        if not wait([answer], timeout_s).done:
            began = "" if answer.cancel() else ", which has begun with it"
            raise MindhooksError(
                f"a plugin holds up the registry's thread: no answer after {timeout_s:g} s{began}"
            )
        return answer.result()

    def _hand_over(self, give: Callable[[], Future[T]]) -> Future[T]:
        """Have ``give`` hand something to the loop; the future it returns ends with the registry.

        Raises:
            MindhooksError: the registry is closed.
        """
        # Before the lock, which another thread may have held when the process was forked.
        if self._process != os.getpid():
            raise MindhooksError(
                f"the registry is in process {self._process}, and this one was forked from it: "
                "make another after the fork"
            )
        with self._gate:
            if self._refuses:
                raise MindhooksError(CLOSED)
            future = give()
            self._answers.add(future)
        future.add_done_callback(self._answers.discard)
        return future

    async def _end_with_registry(self, work: Coroutine[Any, Any, T]) -> T:
        if (task := asyncio.current_task()) is not None:
            # Its future says it, unless that was cancelled: then nobody asks.
            task.add_done_callback(mark_retrieved)
        try:
            return await work
        except asyncio.CancelledError:
            if self._stopped:
                raise MindhooksError(CLOSED) from None
            raise

    def _stop(self) -> None:
        with self._gate:
            self._refuses = True
            if not self._stopped:
                self._stopped = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_TIMEOUT_S)
        # Here too: a plugin may hold up the thread for good.
        self._refuse_answers()
        self._pool.join(ANSWER_TIMEOUT_S)
        _open.discard(self)

    def _refuse_answers(self) -> None:
        for future in list(self._answers):
            with suppress(InvalidStateError):
                future.set_exception(MindhooksError(CLOSED))

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_default_executor(self._pool)
        while not self._stopped:
            try:
                self._loop.run_forever()
            # Not the user's, who interrupts the main thread, but a plugin's.
            except BaseException as error:
                log_plugin_error("the registry's thread", error)
        try:
            self._loop.run_until_complete(self._end_tasks())
        except BaseException as error:
            log_plugin_error("the registry's thread", error)
        finally:
            self._loop.close()
            self._refuse_answers()

    async def _end_tasks(self) -> None:
        # What was handed over last begins, so that its own code can end it.
        for _ in range(3):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=CANCEL_GRACE_S)
        # A turn more: what waits for those tasks hears of their end.
        await asyncio.sleep(0)


class _DaemonPool(ThreadPoolExecutor):
    """Runs each call in a daemon thread of its own.

    The interpreter joins the threads of any other pool before it ends, for as long as it takes: a
    model or a disk that hangs would keep its host from ending. These are joined for a limited time.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start ``fn`` and return its future."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        _Call(call, self).start()
        return future

    def join(self, limit_s: float) -> None:
        """Wait until the threads of all calls have ended, for at most ``limit_s`` seconds."""
        _join([it for it in _calls() if it.pool is self], limit_s)


class _Call(threading.Thread):
    """The thread of one call; the objects that it frees may be a plugin's, too."""

    def __init__(self, call: Callable[[], None], pool: _DaemonPool) -> None:
        super().__init__(target=call, name="mindhooks call", daemon=True)
        self.pool = pool


def _calls() -> list[_Call]:
    return [it for it in threading.enumerate() if isinstance(it, _Call)]


def _join(threads: list[_Call], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


def _join_computing(limit_s: float) -> None:
    """Wait for calls that compute, for ``limit_s`` of processor time and six times that at most.

    On a busy machine a step of a model takes many times as long; what hangs uses no processor.
    """
    end, latest = time.process_time() + limit_s, time.monotonic() + 6 * limit_s
    while _calls() and time.process_time() < end and time.monotonic() < latest:
        before = time.process_time()
        _join(_calls(), limit_s / 3)
        if time.process_time() - before < limit_s / 1000:
            return


_open: set[ThreadedRegistry] = set()


@cache
def _register_exit() -> None:
    """Have this process close what is open when it ends.

    A daemon thread within C++ code (torch's) aborts a process that ends before it.
    """
    # At a time when the threads that the interpreter itself joins have ended.
    atexit.register(_close_open)


def _close_open() -> None:
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    registries = [it for it in list(_open) if not it.closed]
    for registry in registries:
        registry.begin_close()
    for registry in registries:
        registry._end(max(0.0, deadline - time.monotonic()))
    _join(_calls(), max(0.0, deadline - time.monotonic()))
    _join_computing(EXIT_TIMEOUT_S)
    if left := len(_calls()):
        calls = "1 call of a plugin has" if left == 1 else f"{left} calls of plugins have"
        log.warning(
            "%s not ended after %g s: the process ends all the same, and where it is in C++ code "
            "may be aborted by it",
            calls,
            EXIT_TIMEOUT_S,
        )
