"""A registry for hosts that have no event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ParamSpec, TypeVar

from mindhooks._errors import MindhooksError, log_plugin_error
from mindhooks._manager import PluginInfo
from mindhooks._protocols import Scorer
from mindhooks._registry import CANCEL_GRACE_S, DEFAULT_LISTENER_TIMEOUT_S, Registry
from mindhooks._specs import Trigger
from mindhooks._values import Mind

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_TIMEOUT_S = 5.0
"""A host waits so long for the registry's thread, which a plugin may hold up."""


class ThreadedRegistry:
    """A ``Registry`` on an event loop in a thread of its own.

    For hosts without an event loop, and for those whose loop no plugin may hold up. Every method
    may be called from any thread. The mind, the plugins and listeners are called on the registry's
    thread: what they share with the host must bear that. The thread starts at once; neither it nor
    what its plugins do in threads keeps the process alive. Used as a context manager, or closed by
    ``close()``.

    Raises:
        MindhooksError: ``settings`` are wrong, as with ``Registry``.
    """

    def __init__(
        self, mind: Mind, settings: Mapping[str, Any], *, scorer: Scorer | None = None
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="mindhooks", daemon=True)
        self._closing = threading.Lock()
        self._stopped = False
        self._thread.start()
        try:
            self.registry = self._call(lambda: Registry(mind, settings, scorer=scorer), None)
        except BaseException:
            self._stop()
            raise

    registry: Registry
    """The registry itself; its methods are for the registry's thread only."""

    def __enter__(self) -> ThreadedRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the registry's thread; its future is for any other thread.

        Raises:
            MindhooksError: the registry is closed.
        """
        try:
            self._require_open()
        except MindhooksError:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self._loop)

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
        self._require_open()
        idle = asyncio.run_coroutine_threadsafe(self.registry.wait_idle(), self._loop)
        try:
            return bool(wait([idle], timeout_s).done)
        finally:
            idle.cancel()

    def close(self) -> None:
        """Close the registry and its thread, within twice ``listener_timeout_s`` and some seconds.

        Twice is fine. From the registry's own thread it returns at once, and the end follows.
        """
        if threading.current_thread() is self._thread:
            threading.Thread(target=self.close, name="mindhooks close", daemon=True).start()
            return
        with self._closing:
            if self._stopped:
                return
            plugins = self.registry.settings.get("plugins", {})
            limit_s = plugins.get("listener_timeout_s", DEFAULT_LISTENER_TIMEOUT_S)
            ended = asyncio.run_coroutine_threadsafe(self.registry.aclose(), self._loop)
            wait([ended], 2 * limit_s + ANSWER_TIMEOUT_S)
            self._stop()

    def _call(self, function: Callable[[], T], timeout_s: float | None) -> T:
        """Return what ``function`` returns, or raise what it raises, on the registry's thread."""
        if threading.current_thread() is self._thread:
            return function()
        self._require_open()
        answer: Future[T] = Future()

        def answer_call() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(function())
                except BaseException as error:
                    answer.set_exception(error)

        self._loop.call_soon_threadsafe(answer_call)
        if not wait([answer], timeout_s).done:
            began = "" if answer.cancel() else ", which has begun with it"
            raise MindhooksError(
                f"a plugin holds up the registry's thread: no answer after {timeout_s:g} s{began}"
            )
        return answer.result()

    def _require_open(self) -> None:
        if self._stopped:
            raise MindhooksError("the registry is closed")

    def _stop(self) -> None:
        self._stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_TIMEOUT_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_default_executor(_DaemonPool())
        while not self._stopped:
            try:
                self._loop.run_forever()
            # Not the user's, who interrupts the main thread, but a plugin's.
            except BaseException as error:
                log_plugin_error("the registry's thread", error)
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=CANCEL_GRACE_S))
        self._loop.close()


class _DaemonPool(ThreadPoolExecutor):
    """Runs each call in a daemon thread of its own.

    The interpreter joins the threads of any other pool before it ends, so that a model or a disk
    that hangs would keep its host from ending.
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

        threading.Thread(target=call, name="mindhooks call", daemon=True).start()
        return future
