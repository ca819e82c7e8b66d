"""What pluggy orders and calls in a plugin's place: its implementations, guarded.

Every hook travels through pluggy with one argument, ``call``, a mapping of the real ones, so that
one guard fits every hook and no version of pluggy has a say in how arguments are passed.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any

import pluggy

from mindhooks._complaints import complain, on_loops_thread
from mindhooks._errors import PluginError
from mindhooks._implementations import Implementation
from mindhooks._listeners import Arguments, AsyncListener
from mindhooks._specs import Trigger, hookimpl, hookspec

Delivery = Callable[[], Awaitable[None]]


class Calls:
    """The hooks as the registry calls them; the ``_awaited`` ones come first."""

    @hookspec
    def on_trigger(self, call: Arguments) -> tuple[str, Trigger] | None:
        """Who answers, and what."""

    @hookspec
    def on_score_awaited(self, call: Arguments) -> Delivery | None:
        """An async ``tryfirst`` listener's delivery, for the registry to await."""

    @hookspec
    def on_score(self, call: Arguments) -> None:
        """Plain listeners, and the queueing of async ones."""

    @hookspec
    def on_candidate_awaited(self, call: Arguments) -> Delivery | None:
        """As ``on_score_awaited``."""

    @hookspec
    def on_candidate(self, call: Arguments) -> None:
        """As ``on_score``."""


class StandIn:
    """Bears the guards of one plugin as attributes, as pluggy wants a plugin to."""

    def __init__(
        self,
        implementations: Iterable[Implementation],
        listener: Callable[[Implementation], AsyncListener],
    ) -> None:
        for number, implementation in enumerate(implementations):
            hook = implementation.hook
            guard: Callable[[Arguments], Any]
            if implementation.is_wrapper:
                guard = _wrapper(implementation)
            elif not implementation.is_async:
                guard = _plain(implementation)
            elif implementation.tryfirst:
                hook += "_awaited"
                guard = _awaited(listener(implementation))
            else:
                guard = _queued(listener(implementation))
            mark = hookimpl(
                specname=hook,
                wrapper=implementation.is_wrapper,
                tryfirst=implementation.tryfirst,
                trylast=implementation.trylast,
            )
            # Padded: pluggy registers attributes in the order of their names.
            setattr(self, f"{hook}_{number:06}", mark(guard))


def _plain(implementation: Implementation) -> Callable[[Arguments], Any]:
    def guard(call: Arguments) -> tuple[str, Trigger] | None:
        try:
            with on_loops_thread(str(implementation)):
                result = implementation.call(call)
            if implementation.hook == "on_trigger":
                return _answer(implementation, result)
            _refuse_coroutine(result)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            complain(str(implementation), error)
        return None

    return guard


def _answer(implementation: Implementation, result: object) -> tuple[str, Trigger] | None:
    if result is None:
        return None
    if isinstance(result, Trigger):
        return implementation.origin.name, result
    _refuse_coroutine(result)
    raise PluginError(f"returned {type(result).__name__}, not a Trigger or None")


def _refuse_coroutine(result: object) -> None:
    if inspect.iscoroutine(result):
        result.close()
        raise PluginError("returned a coroutine: declare the implementation itself 'async def'")


def _awaited(listener: AsyncListener) -> Callable[[Arguments], Delivery]:
    def guard(call: Arguments) -> Delivery:
        return lambda: listener.tell(call)

    return guard


def _queued(listener: AsyncListener) -> Callable[[Arguments], None]:
    def guard(call: Arguments) -> None:
        listener.enqueue(call)

    return guard


def _wrapper(implementation: Implementation) -> Callable[[Arguments], Any]:
    def guard(call: Arguments) -> Generator[None, list[Any], list[Any]]:
        wrapper = _begin(implementation, call)
        results = yield
        if wrapper is not None:
            _end(implementation, wrapper, results)
        return results

    return guard


def _begin(implementation: Implementation, call: Arguments) -> Generator[None, Any, Any] | None:
    try:
        with on_loops_thread(str(implementation)):
            wrapper: Generator[None, Any, Any] = implementation.call(call)
            next(wrapper)
    except KeyboardInterrupt:
        raise
    except StopIteration:
        complain(str(implementation), PluginError("the wrapper ended before it yielded"))
    except BaseException as error:
        complain(str(implementation), error)
    else:
        return wrapper
    return None


def _end(
    implementation: Implementation, wrapper: Generator[None, Any, Any], results: list[Any]
) -> None:
    # A copy, without the names that the registry needs: what a wrapper does to it is ignored.
    shown: Any = [result[1] for result in results] if implementation.hook == "on_trigger" else []
    if implementation.old_style:
        answers = shown
        shown = pluggy.Result.from_call(lambda: answers)
    try:
        with on_loops_thread(str(implementation)):
            wrapper.send(shown)
            wrapper.close()
        raise PluginError("the wrapper yielded twice")
    except KeyboardInterrupt:
        raise
    except StopIteration:
        pass
    except BaseException as error:
        complain(str(implementation), error)
