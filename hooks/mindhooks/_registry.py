"""The host's side: plugins in, commands to them, their scores and candidates to all who listen."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pluggy

from mindhooks._emission import Emitter
from mindhooks._errors import (
    MindhooksError,
    PluginSource,
    UnhandledCommand,
    format_error,
    log,
    log_plugin_error,
)
from mindhooks._implementations import PlainImplementation, trace_call
from mindhooks._loading import (
    DEFAULT_SCORER,
    find_disabled,
    load_plugin,
    load_scorer,
    plugin_entry_points,
    read_model,
)
from mindhooks._manager import HookManager, PluginInfo
from mindhooks._protocols import Scorer
from mindhooks._specs import MindCommand, Trigger
from mindhooks._tasks import (
    Close,
    Closer,
    TaskHandle,
    close_one,
    copy_settings,
    mark_retrieved,
)
from mindhooks._values import FinetuneCandidate, FinetuneStats, MemoryScore, MemoryStats, Mind, Run

DEFAULT_LISTENER_TIMEOUT_S = 30.0
MAX_LISTENER_TIMEOUT_S = 1_000_000.0
"""Some 11 days: twice as long is still a time-out that every system can wait for."""
CANCEL_GRACE_S = 0.5
"""At close, tasks that were cancelled may take so long to end."""

SCORER_ACLOSE = "the scorer: aclose"


class Registry:
    """Dispatches a Mind's commands to plugins and tells listeners what the plugins find.

    Used as an async context manager, or closed by ``aclose()``. All methods are called on the event
    loop's thread.

    Args:
        mind: the host.
        settings: the whole parsed TOML; ``{}`` is fine.
        scorer: the shared scorer, instead of the one that the settings name. Its owner closes it.

    Raises:
        MindhooksError: the settings are wrong, as on assignment of ``settings``.
    """

    def __init__(
        self, mind: Mind, settings: Mapping[str, Any], *, scorer: Scorer | None = None
    ) -> None:
        self.mind = mind
        self.settings = settings
        self._manager = HookManager(lambda: self._listener_timeout_s)
        self._emitter = Emitter(self._manager)
        self._made: list[tuple[PluginSource, object]] = []
        self._handles: dict[str, TaskHandle] = {}
        self._scorer = scorer
        self._closes_scorer = scorer is None
        self._scorer_lock = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None
        self._closer = Closer()
        self.stash: dict[object, Any] = {}
        """What plugins of this registry share with each other; it ends with the registry."""

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The whole parsed TOML. Flows read it at the start of each run; a host may assign it.

        Raises:
            MindhooksError: on assignment, where a table or a value that the registry itself needs
                is of the wrong type.
        """
        return self._settings

    @settings.setter
    def settings(self, settings: Mapping[str, Any]) -> None:
        plugins, server = _table(settings, "plugins"), _table(settings, "server")
        limit = plugins.get("listener_timeout_s", DEFAULT_LISTENER_TIMEOUT_S)
        is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if not is_number or not 0 < limit <= MAX_LISTENER_TIMEOUT_S:
            raise MindhooksError(
                "plugins.listener_timeout_s: expected a number above 0 and at most "
                f"{MAX_LISTENER_TIMEOUT_S:.0f}"
            )
        disabled = plugins.get("disabled", [])
        if not isinstance(disabled, list) or not all(isinstance(it, str) for it in disabled):
            raise MindhooksError("plugins.disabled: expected an array of strings")
        if not isinstance(server.get("scorer", DEFAULT_SCORER), str):
            raise MindhooksError("server.scorer: expected a string")
        self._settings = settings
        self._listener_timeout_s = float(limit)

    # -- plugins ---------------------------------------------------------------------------------

    @property
    def plugin_manager(self) -> pluggy.PluginManager:
        """The pluggy manager that the plugins are registered in, as they are, by their names."""
        return self._manager

    def load_entry_points(self) -> None:
        """Register the plugins of entry-point group ``mindhooks`` that are not disabled.

        The environment variable ``MINDSCORE_DISABLE_PLUGINS`` disables further ones: ``a,b``, or
        ``*`` for all but mindscore's own. One that cannot be imported, built or registered is
        skipped with one logged line.

        Raises:
            MindhooksError: the registry is closed: nobody would close what is made here.
        """
        self._require_open()
        plugins = _table(self.settings, "plugins")
        tables = _table(plugins, "settings")
        entries = plugin_entry_points()
        disabled = find_disabled((source for source, _ in entries), plugins.get("disabled", ()))
        for source, entry in entries:
            if source in disabled or self._manager.is_blocked(source.name):
                self._manager.note(source, enabled=False)
                continue
            try:
                # Before any code of it runs.
                self._manager.require_free(source.name)
                plugin, made_here = load_plugin(entry, tables.get(source.name, {}))
                if made_here:
                    self._made.append((source, plugin))
                self._manager.add(plugin, source, entry.dist)
            except KeyboardInterrupt:
                raise
            # Not only Exception: a module may call sys.exit when it is imported.
            except BaseException as error:
                log_plugin_error(f"{source} was skipped", error)
                self._manager.note(source, error=format_error(error))

    def register(self, plugin: object, name: str | None = None) -> None:
        """Register a plugin by hand: a module, a class or an instance. Its owner closes it.

        Raises:
            PluginError: it breaks the hook contract, or it or its name is registered already;
                nothing of it is registered then.
        """
        self._manager.register(plugin, name)

    def plugins(self) -> list[PluginInfo]:
        """Return every plugin that is registered, was left out, or failed with its error."""
        return self._manager.infos()

    # -- commands --------------------------------------------------------------------------------

    def dispatch(self, command: str) -> dict[str, Trigger]:
        """Hand a command to every plugin; return the answer of each that took it, by its name.

        Raises:
            UnhandledCommand: no plugin took it; the text lists the commands that plugins name.
            MindhooksError: the registry is closed.
        """
        self._require_open()
        arguments = {"command": _as_command(command), "mind": self.mind, "registry": self}
        answers: dict[str, Trigger] = {}
        with trace_call("on_trigger", arguments) as note:
            for implementation in self._manager.implementations("on_trigger"):
                if isinstance(implementation, PlainImplementation):
                    answer = implementation.call(arguments, note)
                    if answer is not None:
                        answers[implementation.source.name] = answer
        if not answers:
            known = sorted({it for info in self.plugins() for it in info.commands})
            listed = f"; plugins name these: {', '.join(known)}" if known else ""
            raise UnhandledCommand(f"no plugin took the command {str(command)!r}{listed}")
        return answers

    def cancel(self, command: str) -> list[str]:
        """Void and cancel the runs of a command, dispatched or opened by ``run``, without waiting.

        A queued one never begins. The end of a run is told; statistics without an error get the
        error "cancelled". Runs of other commands go on, those of the same task handle too.

        Returns:
            The plugins whose runs were cancelled, by name, without those that were voided before.
            For a run that began outside of a plugin's call it is the name of its task handle.

        Raises:
            MindhooksError: the registry is closed.
        """
        self._require_open()
        command, handles = _as_command(command), list(self._handles.values())
        names = [name for handle in handles for name in handle.cancel_command(command)]
        return list(dict.fromkeys([*names, *self._emitter.cancel(command, handles)]))

    def task_handle(self, name: str) -> TaskHandle:
        """Return the task handle of that name; ``wait_idle`` and ``aclose`` wait for it.

        It is made on first use.

        Raises:
            MindhooksError: the registry is closed.
        """
        self._require_open()
        return self._handles.setdefault(name, TaskHandle(name))

    def task_errors(self) -> dict[str, BaseException]:
        """Return the exception of each task handle's last failed run, by the handle's name."""
        handles = self._handles.items()
        return {name: handle.error for name, handle in handles if handle.error is not None}

    async def wait_idle(self) -> None:
        """Wait until no task runs and every listener's queue is empty."""
        while running := self._running():
            await asyncio.wait(running)

    def _running(self) -> set[asyncio.Task[None]]:
        # A handle whose task is done may have a queued run that has not been started yet.
        handles = {handle.current for handle in self._handles.values() if handle.current}
        return handles | {worker for worker in self._manager.workers if not worker.done()}

    # -- runs, and what they find ----------------------------------------------------------------

    def run(self, command: str, *, uses_scorer: bool = True) -> AbstractAsyncContextManager[Run]:
        """Open a run of a flow: ``async with registry.run(command) as run:``.

        What is emitted within the block belongs to the run, also by tasks and ``to_thread`` threads
        that it starts. At the end of the block, ``on_run_end`` is told, however the block ended; a
        cancellation waits for it, for as long as async listeners may take.

        The shared scorer is built first, for ``run.model``. Where it cannot be built, ``run.model``
        is ``server.model`` of the settings, and only the flow's own ``await registry.scorer()``
        raises.

        Args:
            command: the command that the flow answers.
            uses_scorer: false for a flow without a scorer: none is built for it.

        Raises:
            MindhooksError: the registry is closed.
        """
        return self._run(command, uses_scorer)

    @asynccontextmanager
    async def _run(self, command: str, uses_scorer: bool) -> AsyncIterator[Run]:
        self._require_open()
        started_at, settings = time.time(), copy_settings(self.settings)
        model: object = _table(settings, "server").get("model", "")
        cancellation: asyncio.CancelledError | None = None
        try:
            if uses_scorer or self._scorer is not None:
                model = read_model(await self.scorer(), model)
        except MindhooksError:
            self._require_open()
        except asyncio.CancelledError as error:
            # The run has begun for whoever triggered it: its end is told.
            cancellation = error
        run = Run(os.urandom(16).hex(), _as_command(command), str(model), settings, started_at)
        async with self._emitter.open_run(run, {"mind": self.mind, "registry": self}):
            if cancellation is not None:
                raise cancellation
            yield run

    def report(self, stats: MemoryStats | FinetuneStats) -> None:
        """Set the statistics that ``on_run_end`` gets of the run that calls this; the last count.

        Raises:
            MindhooksError: the caller is not part of a run of this registry, or the run has ended.
        """
        self._emitter.report(stats)

    async def emit_score(self, score: MemoryScore) -> None:
        """Tell every listener of a score; nothing happens after ``aclose`` or in a voided run."""
        await self._emit("on_score", score=score)

    async def emit_candidate(self, candidate: FinetuneCandidate) -> None:
        """Tell every listener of a candidate, by the rules of ``emit_score``."""
        await self._emit("on_candidate", candidate=candidate)

    async def _emit(self, hook: str, **found: object) -> None:
        await self._emitter.emit(hook, {**found, "mind": self.mind, "registry": self})

    # -- the shared scorer -----------------------------------------------------------------------

    async def scorer(self) -> Scorer:
        """Return the shared scorer: the one handed in, or the one that ``[server] scorer`` names.

        The latter is built on first use, and closed by ``aclose``.

        Raises:
            ScorerError: there is none of that name, it cannot be built, or its ``model`` raises.
            MindhooksError: the registry is closed.
        """
        async with self._scorer_lock:
            self._require_open()
            if self._scorer is None:
                scorer = await load_scorer(_table(self.settings, "server"))
                if self._closing is not None:
                    # aclose did not wait for so long.
                    await close_one(SCORER_ACLOSE, scorer)
                self._require_open()
                self._scorer = scorer
            # Scores are kept by it: refused here, rather than kept under another name.
            read_model(self._scorer, "")
            return self._scorer

    # -- the end ---------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Cancel every task, let the listeners' queues drain, close plugins and scorer.

        The ends of the runs that are cancelled, or still open, are told. Tasks and queues together
        have ``listener_timeout_s`` to end, then plugins and scorer together have it again. Whatever
        they do, this ends within twice that limit and a second; tasks left behind are logged. Twice
        is fine. Afterwards ``dispatch`` raises and emissions are dropped.
        """
        if self._closing is None:
            self._emitter.accepts_emissions = False
            self._closing = asyncio.create_task(self._close(), name="mindhooks close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for handle in self._handles.values():
            handle.shut()
        await self._drain()
        closings: list[tuple[str, Close]] = []
        for source, plugin in reversed(self._made):
            name = f"{source}: aclose"
            closings.append((name, partial(close_one, name, plugin)))
        closings.append((SCORER_ACLOSE, self._close_scorer))
        await self._closer.close_all(closings, self._listener_timeout_s)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._listener_timeout_s
        await self._wait_until(deadline)
        # A host may have opened runs, and a task that does not end may be in one.
        told: dict[str, object] = {"mind": self.mind, "registry": self}
        ending = asyncio.create_task(self._emitter.end_runs(told))
        ending.add_done_callback(mark_retrieved)
        await asyncio.wait({ending}, timeout=max(deadline - loop.time(), CANCEL_GRACE_S))
        await self._wait_until(deadline)
        for listener in list(self._manager.workers.values()):
            listener.drop_queue()
        # What was cancelled hears of it before its plugin is closed.
        await asyncio.sleep(0)
        if running := self._running():
            await asyncio.wait(running, timeout=CANCEL_GRACE_S)
        self._emitter.tells_run_ends = False
        for handle in self._handles.values():
            if handle.running:
                log.error("task %r does not end and was left behind", handle.name)

    async def _wait_until(self, deadline: float) -> None:
        """Wait until the registry is idle, or the loop's time is ``deadline``."""
        loop = asyncio.get_running_loop()
        while (running := self._running()) and loop.time() < deadline:
            await asyncio.wait(running, timeout=deadline - loop.time())

    async def _close_scorer(self) -> None:
        # The lock: somebody may be waiting for the scorer to be built.
        async with self._scorer_lock:
            if self._scorer is not None and self._closes_scorer:
                await close_one(SCORER_ACLOSE, self._scorer)

    def _require_open(self) -> None:
        if self._closing is not None:
            raise MindhooksError("the registry is closed")


def _table(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = settings.get(name, {})
    if not isinstance(table, Mapping):
        raise MindhooksError(f"{name}: expected a table")
    return table


def _as_command(command: str) -> str:
    return MindCommand(command) if command in list(MindCommand) else command
