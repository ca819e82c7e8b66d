"""The host's side: plugins in, commands to them, their scores and candidates to all who listen."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from types import ModuleType, TracebackType
from typing import Any

import pluggy

from mindhooks._closing import Close, Closer, close_one
from mindhooks._complaints import Origin, complain, describe, log, on_loops_thread
from mindhooks._errors import MindhooksError, PluginError, ScorerError, UnhandledCommand
from mindhooks._implementations import Implementation, find_implementations
from mindhooks._listeners import Arguments, AsyncListener
from mindhooks._loading import (
    PluginInfo,
    find_disabled,
    find_scorer,
    load_plugin,
    make_scorer,
    plugin_entry_points,
)
from mindhooks._mind import Mind
from mindhooks._scorer import Scorer
from mindhooks._specs import PROJECT, MindCommand, Trigger
from mindhooks._standins import Calls, Delivery, StandIn
from mindhooks._tasks import TaskHandle, current_run, in_thread, outlast
from mindhooks._tracing import TracedListener, hook_call, traced
from mindhooks._values import FinetuneCandidate, MemoryScore

DEFAULT_SCORER = "local"
DEFAULT_LISTENER_TIMEOUT_S = 30.0
LAST_WORDS_S = 0.5
"""How long tasks may take to end at close, once their time is over."""

SCORER_ACLOSE = "the scorer: aclose"


_emitting: ContextVar[Registry] = ContextVar("mindhooks_registry")


def emitting_registry() -> Registry:
    """The registry whose emission a listener is being told of.

    Raises:
        MindhooksError: nothing is being emitted.
    """
    try:
        return _emitting.get()
    except LookupError:
        raise MindhooksError("no registry is telling its listeners of anything") from None


class Registry:
    """Dispatches a Mind's commands to plugins and tells listeners what the plugins find.

    ``settings`` is the whole parsed TOML. Used as an async context manager, or closed by
    ``aclose()``. All methods are called on the event loop's thread.
    """

    def __init__(self, mind: Mind, settings: Mapping[str, Any]) -> None:
        self.mind = mind
        self.settings = settings
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Calls)
        self._infos: list[PluginInfo] = []
        self._made: list[tuple[Origin, object]] = []
        self._listeners: list[AsyncListener] = []
        self._handles: dict[str, TaskHandle] = {}
        self._scorer: Scorer | None = None
        self._scorer_lock = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None
        self._closer = Closer()

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The whole parsed TOML. Flows read it at the start of each run; a host may assign it.

        Raises:
            MindhooksError: on assignment, where a table or a value that the registry itself needs
                is of the wrong kind.
        """
        return self._settings

    @settings.setter
    def settings(self, settings: Mapping[str, Any]) -> None:
        plugins, server = _table(settings, "plugins"), _table(settings, "server")
        limit = plugins.get("listener_timeout_s", DEFAULT_LISTENER_TIMEOUT_S)
        is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if not is_number or not 0 < limit < math.inf:
            raise MindhooksError("plugins.listener_timeout_s: expected a number above 0")
        disabled = plugins.get("disabled", [])
        if not isinstance(disabled, list) or not all(isinstance(it, str) for it in disabled):
            raise MindhooksError("plugins.disabled: expected an array of strings")
        if not isinstance(server.get("scorer", DEFAULT_SCORER), str):
            raise MindhooksError("server.scorer: expected a string")
        self._settings = settings
        self._listener_timeout_s = float(limit)

    # -- plugins ---------------------------------------------------------------------------------

    def load_entry_points(self) -> None:
        """Register the plugins of entry-point group ``mindhooks`` that are not disabled.

        The environment variable ``MINDSCORE_DISABLE_PLUGINS`` disables further ones: ``a,b``, or
        ``*`` for all but mindscore's own. One that cannot be imported, built or registered is
        skipped with one logged line.
        """
        plugins = _table(self.settings, "plugins")
        tables = _table(plugins, "settings")
        entries = plugin_entry_points()
        disabled = find_disabled((origin for origin, _ in entries), plugins.get("disabled", ()))
        for origin, entry in entries:
            if origin in disabled:
                self._note(origin, enabled=False)
                continue
            try:
                plugin, made_here = load_plugin(entry, tables.get(origin.name, {}))
                if made_here:
                    self._made.append((origin, plugin))
                self._register(plugin, origin)
            except KeyboardInterrupt:
                raise
            # Not only Exception: a module may call sys.exit when it is imported.
            except BaseException as error:
                complain(f"{origin} was skipped", error)
                self._note(origin, error=describe(error))

    def register(self, plugin: object, name: str | None = None) -> None:
        """Register a plugin by hand: a module, a class or an instance. Its owner closes it.

        Raises:
            PluginError: it breaks the hook contract, or the name is taken; nothing of it is
                registered then.
        """
        origin = Origin(name or _default_name(plugin))
        try:
            self._register(plugin, origin)
        except PluginError as error:
            self._note(origin, error=describe(error))
            raise PluginError(f"{origin}: {error}") from None

    def _register(self, plugin: object, origin: Origin) -> None:
        if self._manager.has_plugin(origin.name):
            raise PluginError(f"another plugin is already called {origin.name!r}")
        implementations = [traced(it) for it in find_implementations(plugin, origin)]
        self._manager.register(StandIn(implementations, self._listener), origin.name)
        hooks = tuple(dict.fromkeys(implementation.hook for implementation in implementations))
        self._note(origin, hooks=hooks)

    def _listener(self, implementation: Implementation) -> AsyncListener:
        listener = TracedListener(implementation, lambda: self._listener_timeout_s)
        self._listeners.append(listener)
        return listener

    def _note(
        self,
        origin: Origin,
        *,
        hooks: tuple[str, ...] = (),
        enabled: bool = True,
        error: str | None = None,
    ) -> None:
        self._infos.append(
            PluginInfo(origin.name, origin.distribution, origin.version, hooks, enabled, error)
        )

    def plugins(self) -> list[PluginInfo]:
        """Every plugin this registry has met: registered, disabled, or failed with its error."""
        return list(self._infos)

    # -- commands --------------------------------------------------------------------------------

    def dispatch(self, command: str) -> dict[str, Trigger]:
        """Hand a command to every plugin; what each that took it did, by plugin name.

        Raises:
            UnhandledCommand: no plugin took it.
            MindhooksError: the registry is closed.
        """
        self._require_open()
        if command in list(MindCommand):
            command = MindCommand(command)
        call = {"command": command, "mind": self.mind, "registry": self}
        with hook_call("on_trigger", call):
            answers: list[tuple[str, Trigger]] = self._manager.hook.on_trigger(call=call)
        if not answers:
            raise UnhandledCommand(f"no plugin took the command {str(command)!r}")
        return dict(answers)

    def task_handle(self, name: str) -> TaskHandle:
        """The task handle of that name, made on first use; ``wait_idle`` and ``aclose`` know it."""
        self._require_open()
        return self._handles.setdefault(name, TaskHandle(name))

    def task_errors(self) -> dict[str, BaseException]:
        """What the last failed run of each task handle raised, by the handle's name."""
        handles = self._handles.items()
        return {name: handle.error for name, handle in handles if handle.error is not None}

    async def wait_idle(self) -> None:
        """Wait until no task runs and every listener's queue is empty."""
        while running := self._running():
            await asyncio.wait(running)

    def _running(self) -> set[asyncio.Task[None]]:
        tasks = [handle.current for handle in self._handles.values()]
        tasks += [listener.worker for listener in self._listeners]
        return {task for task in tasks if task is not None}

    # -- what plugins find -----------------------------------------------------------------------

    async def emit_score(self, score: MemoryScore) -> None:
        """Tell every listener of a score; nothing happens after ``aclose`` or in a voided run."""
        hook = self._manager.hook
        call = {"score": score, "mind": self.mind}
        await self._emit(hook.on_score_awaited, hook.on_score, call)

    async def emit_candidate(self, candidate: FinetuneCandidate) -> None:
        """Tell every listener of a candidate, by the rules of ``emit_score``."""
        hook = self._manager.hook
        call = {"candidate": candidate, "mind": self.mind}
        await self._emit(hook.on_candidate_awaited, hook.on_candidate, call)

    async def _emit(
        self, awaited: pluggy.HookCaller, others: pluggy.HookCaller, call: Arguments
    ) -> None:
        if self._is_void():
            return
        _emitting.set(self)
        with hook_call(others.name, call):
            deliveries: list[Delivery] = awaited(call=call)
            for deliver in deliveries:
                await self._finish(deliver)
                if self._is_void():
                    return
            others(call=call)

    def _is_void(self) -> bool:
        run = current_run.get()
        return self._closing is not None or (run is not None and run.voided)

    async def _finish(self, deliver: Delivery) -> None:
        """Await a delivery to its end, even when the run that emits is cancelled meanwhile."""
        delivery = asyncio.ensure_future(deliver())
        run = current_run.get()
        if run is not None:
            run.deliveries.add(delivery)
            delivery.add_done_callback(run.deliveries.discard)
        await outlast(delivery)

    # -- the shared scorer -----------------------------------------------------------------------

    async def scorer(self) -> Scorer:
        """The scorer that ``[server] scorer`` names: one for all, built on first use.

        Raises:
            ScorerError: there is none of that name, or it cannot be built.
            MindhooksError: the registry is closed.
        """
        async with self._scorer_lock:
            self._require_open()
            if self._scorer is None:
                scorer = await self._build_scorer()
                if self._closing is not None:
                    # aclose did not wait for so long.
                    await close_one(SCORER_ACLOSE, scorer)
                self._require_open()
                self._scorer = scorer
            return self._scorer

    async def _build_scorer(self) -> Scorer:
        server = _table(self.settings, "server")
        name = server.get("scorer", DEFAULT_SCORER)
        entry = await in_thread(find_scorer, name)
        try:
            factory = await in_thread(entry.load)
            with on_loops_thread(f"scorer {name!r}"):
                return make_scorer(name, factory, server)
        except (MindhooksError, KeyboardInterrupt, asyncio.CancelledError):
            raise
        # A scorer's module is a plugin's code too.
        except BaseException as error:
            raise ScorerError(f"scorer {name!r} cannot be built: {describe(error)}") from error

    # -- the end ---------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Cancel every task, let the listeners' queues drain, close plugins and scorer.

        Tasks and queues together have the listeners' time limit to end, then plugins and scorer
        together have it again. Whatever they do, this ends within twice the limit and a second;
        what it had to leave behind is logged. Twice is fine. Afterwards ``dispatch`` raises and
        emissions are dropped.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="mindhooks close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for handle in self._handles.values():
            handle.shut()
        await self._drain()
        made = [(f"{origin}: aclose", plugin) for origin, plugin in reversed(self._made)]
        closings: list[tuple[str, Close]] = [
            (what, partial(close_one, what, plugin)) for what, plugin in made
        ]
        closings.append((SCORER_ACLOSE, self._close_scorer))
        await self._closer.close_all(closings, self._listener_timeout_s)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._listener_timeout_s
        while (running := self._running()) and loop.time() < deadline:
            await asyncio.wait(running, timeout=deadline - loop.time())
        for listener in self._listeners:
            listener.drop()
        # What was cancelled hears of it before its plugin is closed.
        await asyncio.sleep(0)
        if running := self._running():
            await asyncio.wait(running, timeout=LAST_WORDS_S)
        for handle in self._handles.values():
            if handle.running:
                log.error("task %r does not end and was left behind", handle.name)

    async def _close_scorer(self) -> None:
        # The lock: somebody may be waiting for the scorer to be built.
        async with self._scorer_lock:
            if self._scorer is not None:
                await close_one(SCORER_ACLOSE, self._scorer)

    def _require_open(self) -> None:
        if self._closing is not None:
            raise MindhooksError("the registry is closed")


def _table(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = settings.get(name, {})
    if not isinstance(table, Mapping):
        raise MindhooksError(f"{name}: expected a table")
    return table


def _default_name(plugin: object) -> str:
    # Not plugin.__name__ on an instance: that may be a property.
    named = plugin if isinstance(plugin, ModuleType | type) else type(plugin)
    return named.__name__
