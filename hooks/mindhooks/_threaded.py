"""A registry for hosts that have no event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any, TypeVar

from mindhooks._complaints import complain
from mindhooks._daemon_pool import DaemonPool
from mindhooks._errors import MindhooksError
from mindhooks._loading import PluginInfo
from mindhooks._mind import Mind
from mindhooks._registry import DEFAULT_LISTENER_TIMEOUT_S, LAST_WORDS_S, Registry
from mindhooks._specs import Trigger

T = TypeVar("T")

PATIENCE_S = 5.0
"""How long a host waits for the registry's thread, which a plugin may hold up."""


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

    def __init__(self, mind: Mind, settings: Mapping[str, Any]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="mindhooks", daemon=True)
        self._closing = threading.Lock()
        self._stopped = False
        self._thread.start()
        try:
            self.registry = self._call(lambda: Registry(mind, settings), None)
        except BaseException:
            self._stop()
            raise

    registry: Registry
    """The registry itself; its methods are for the registry's thread only."""

    def __enter__(self) -> ThreadedRegistry:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def settings(self) -> Mapping[str, Any]:
        """As ``Registry.settings``."""
        return self.registry.settings

    @settings.setter
    def settings(self, settings: Mapping[str, Any]) -> None:
        self._call(lambda: setattr(self.registry, "settings", settings), PATIENCE_S)

    def load_entry_points(self) -> None:
        """As ``Registry.load_entry_points``; returns when the plugins are loaded."""
        self._call(self.registry.load_entry_points, None)

    def register(self, plugin: object, name: str | None = None) -> None:
        """As ``Registry.register``."""
        self._call(lambda: self.registry.register(plugin, name), None)

    def plugins(self) -> list[PluginInfo]:
        """As ``Registry.plugins``."""
        return self.registry.plugins()

    def dispatch(self, command: str) -> dict[str, Trigger]:
        """As ``Registry.dispatch``.

        Raises:
            UnhandledCommand: no plugin took the command.
            MindhooksError: the registry is closed, or a plugin holds up its thread for seconds.
        """
        return self._call(lambda: self.registry.dispatch(command), PATIENCE_S)

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
        """As ``Registry.task_errors``."""
        return self._call(self.registry.task_errors, PATIENCE_S)

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until no task runs and every listener's queue is empty.

        ``timeout_s``: for at most so long; whether it is idle.

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
        """As ``Registry.aclose``; ends within twice the listeners' time limit and some seconds.

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
            wait([ended], 2 * limit_s + PATIENCE_S)
            self._stop()

    def _call(self, function: Callable[[], T], patience_s: float | None) -> T:
        """What ``function`` returns or raises on the registry's thread."""
        if threading.current_thread() is self._thread:
            return function()
        self._require_open()
        answer: Future[T] = Future()

        def answering() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(function())
                except BaseException as error:
                    answer.set_exception(error)

        self._loop.call_soon_threadsafe(answering)
        if not wait([answer], patience_s).done:
            began = "" if answer.cancel() else ", which has begun with it"
            raise MindhooksError(
                f"a plugin holds up the registry's thread: no answer after {patience_s:g} s{began}"
            )
        return answer.result()

    def _require_open(self) -> None:
        if self._stopped:
            raise MindhooksError("the registry is closed")

    def _stop(self) -> None:
        self._stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_default_executor(DaemonPool())
        while not self._stopped:
            try:
                self._loop.run_forever()
            # Not the user's, who interrupts the main thread, but a plugin's.
            except BaseException as error:
                complain("the registry's thread", error)
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=LAST_WORDS_S))
        self._loop.close()
