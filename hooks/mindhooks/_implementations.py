"""A plugin's functions: called so that no failure of theirs reaches anybody else, and traced."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from reprlib import Repr
from typing import Any

from mindhooks._errors import PluginError, PluginSource, log, log_plugin_error, warn_if_slow
from mindhooks._specs import SPECS, Trigger
from mindhooks._tasks import Caller, detach_context, mark_retrieved
from mindhooks._values import FinetuneCandidate, MemoryScore, Run

Note = Callable[[str], object]
"""Takes what happened in a hook call, for its line."""

_short = Repr()
_short.maxstring = 60


@contextmanager
def trace_call(hook: str, arguments: Mapping[str, object]) -> Iterator[Note]:
    """Log one line on the hook call that the body makes, of the steps that the body notes."""
    # Not made by an import, which has no side effect.
    log = logging.getLogger("mindhooks.trace")
    if not log.isEnabledFor(logging.DEBUG):
        yield list[str]().append
        return
    steps: list[str] = []
    started = time.perf_counter()
    try:
        yield steps.append
    finally:
        told = ", ".join(steps) or "nobody is listening"
        shown = ", ".join(map(_short.repr, _shorten(arguments)))
        elapsed = format_elapsed(started).strip("()")
        log.debug("trace: %s(%s) in %s: %s", hook, shown, elapsed, told)


def format_elapsed(started: float) -> str:
    """Return the time since ``started`` (of ``time.perf_counter``) as ``"(1.5 ms)"``."""
    return f"({1000 * (time.perf_counter() - started):.1f} ms)"


def format_result(result: object) -> str:
    """Return an answer as it is, of anything else its type: its text may be a memory's."""
    return str(result) if isinstance(result, Trigger | None) else type(result).__name__


def _shorten(arguments: Mapping[str, object]) -> list[object]:
    match arguments:
        case {"command": command}:
            return [str(command)]
        case {"score": MemoryScore(key=key, score=score)}:
            return [key, score]
        case {"candidate": FinetuneCandidate(node_id=node_id)}:
            return [node_id]
        case {"stats": stats, "run": Run(command=command)}:
            return [str(command), None if stats is None else type(stats).__name__]
    return []


Arguments = Mapping[str, object]


class Implementation:
    """One function of one plugin that implements one hook.

    Arguments are matched by the names of its parameters, in one way with every version of pluggy:
    those with a default and those by keyword only are passed too, where the hook has them.
    """

    def __init__(self, function: Callable[..., Any], hook: str, source: PluginSource) -> None:
        self.function = function
        self.hook = hook
        self.source = source
        self.is_removed = False
        """True once the plugin was unregistered: it must hear of nothing more."""
        self._positional, self._named = match_parameters(function, hook)

    def __str__(self) -> str:
        return f"{self.source}: {self.hook}"

    def invoke(self, arguments: Arguments) -> Any:
        """Call the function with those of the hook's arguments that it takes."""
        return self.function(
            *(arguments[name] for name in self._positional),
            **{name: arguments[name] for name in self._named},
        )

    def detach_context(self, arguments: Arguments) -> contextvars.Context:
        """Return a context for the call, in which what the function starts is its plugin's."""
        command = arguments.get("command")
        return detach_context(Caller(self.source.name, None if command is None else str(command)))

    def remove(self) -> None:
        """Stop telling the function of anything."""
        self.is_removed = True


class PlainImplementation(Implementation):
    """A plain function: called on the event loop's thread, in the hook call itself."""

    def call(self, arguments: Arguments, note: Note) -> Trigger | None:
        """Call it, log what it raises, and return its answer, if it is one of ``on_trigger``."""
        if self.is_removed:
            return None
        started = time.perf_counter()
        try:
            with warn_if_slow(self):
                # Detached: the tasks that it starts belong to the plugin, not to a run.
                result = self.detach_context(arguments).run(self.invoke, arguments)
        except KeyboardInterrupt:
            raise
        # Not only Exception: a plugin's sys.exit must not end its host.
        except BaseException as error:
            note(f"{self.source.name} raised {type(error).__name__} {format_elapsed(started)}")
            log_plugin_error(self, error)
            return None
        note(f"{self.source.name} returned {format_result(result)} {format_elapsed(started)}")
        try:
            return self._check_result(result)
        except PluginError as error:
            log_plugin_error(self, error)
            return None

    def _check_result(self, result: object) -> Trigger | None:
        if inspect.iscoroutine(result):
            result.close()
            raise PluginError("returned a coroutine: declare the implementation itself 'async def'")
        if self.hook != "on_trigger":
            return None
        if result is None or isinstance(result, Trigger):
            return result
        raise PluginError(f"returned {type(result).__name__}, not a Trigger or None")


class AsyncImplementation(Implementation):
    """An ``async def``: told of one event at a time, for at most ``time_limit()`` seconds each.

    One marked ``tryfirst`` is awaited by the emitter; any other works off its own queue in a task,
    which stands in ``workers`` meanwhile.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        hook: str,
        source: PluginSource,
        *,
        is_awaited: bool,
        time_limit: Callable[[], float],
        workers: dict[asyncio.Task[None], AsyncImplementation],
    ) -> None:
        super().__init__(function, hook, source)
        self.is_awaited = is_awaited
        self._time_limit = time_limit
        self._workers = workers
        self._worker: asyncio.Task[None] | None = None
        self._queue: deque[Arguments] = deque()
        # Cancelled calls that have not ended yet: asyncio itself holds tasks only weakly.
        self._abandoned: set[asyncio.Task[None]] = set()

    async def tell(self, arguments: Arguments, note: Note) -> None:
        """Await the function within the time limit; what it raises is logged."""
        if self.is_removed:
            return
        started = time.perf_counter()
        # Detached, as a plain one.
        call = asyncio.create_task(self._call(arguments), context=self.detach_context(arguments))
        call.add_done_callback(mark_retrieved)
        limit_s = self._time_limit()
        try:
            await asyncio.wait({call}, timeout=limit_s)
        finally:
            if not call.done():
                self._abandoned.add(call)
                call.add_done_callback(self._abandoned.discard)
                call.cancel()
            note(f"{self.source.name} awaited {format_elapsed(started)}")
        if not call.done():
            log.error("%s: took longer than %g s and was cancelled", self, limit_s)
        elif call.cancelled():
            log_plugin_error(self, asyncio.CancelledError("its own, or of what it awaited"))

    def enqueue(self, arguments: Arguments, note: Note) -> None:
        """Have the function told after all that it was told of before, without waiting for it."""
        if self.is_removed:
            return
        note(f"{self.source.name} queued")
        self._queue.append(arguments)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
            self._workers[self._worker] = self
            # Not by the worker: one that is cancelled at once never runs.
            self._worker.add_done_callback(self._workers.pop)

    def remove(self) -> None:
        """Forget what is queued; a call that has begun is let end."""
        super().remove()
        self._queue.clear()

    def drop_queue(self) -> None:
        """Forget what is queued, cancel the call in progress, and log how much was lost."""
        if self._worker is not None and not self._worker.done():
            lost = len(self._queue) + 1
            log.error("%s: dropped %d undelivered at close", self, lost)
            self._queue.clear()
            self._worker.cancel()

    async def _work(self) -> None:
        while self._queue:
            await self.tell(self._queue.popleft(), list[str]().append)

    async def _call(self, arguments: Arguments) -> None:
        try:
            await self.invoke(arguments)
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise
        # Not only Exception: a SystemExit that leaves a task stops the host's event loop.
        except BaseException as error:
            log_plugin_error(self, error)


def match_parameters(
    function: Callable[..., Any], hook: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the hook's arguments that ``function`` takes: by position, and by name.

    By position up to the first parameter that the hook does not have, so that a decorator may take
    ``*args``.

    Raises:
        PluginError: the function needs an argument that the hook does not have, or cannot be called
            so.
    """
    allowed = tuple(inspect.signature(SPECS[hook]).parameters)
    positional: list[str] = []
    named: list[str] = []
    skipped = None
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise PluginError(f"{hook}: its parameters cannot be read: {error}") from error
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name not in allowed:
            if parameter.default is parameter.empty:
                hint = "; register an instance, not its class" if parameter.name == "self" else ""
                raise PluginError(
                    f"{hook} has no argument {parameter.name!r}; it has {', '.join(allowed)}{hint}"
                )
            skipped = parameter.name
        elif parameter.kind is parameter.KEYWORD_ONLY or (
            skipped and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ):
            named.append(parameter.name)
        elif skipped:
            raise PluginError(
                f"{hook}: {parameter.name!r} is positional-only and comes after {skipped!r}, which "
                "the hook does not have: put it before, or leave out the '/'"
            )
        else:
            positional.append(parameter.name)
    try:
        called = inspect.signature(function, follow_wrapped=False)
        called.bind(*positional, **dict.fromkeys(named))
    except ValueError:
        # A decorator in C, such as functools.lru_cache, which has no signature of its own.
        pass
    except TypeError as error:
        raise PluginError(f"{hook} cannot be called as its decorators leave it: {error}") from error
    return tuple(positional), tuple(named)
