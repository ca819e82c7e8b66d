"""Finding a plugin's hook implementations, and refusing those that break the contract."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from mindhooks._complaints import Origin
from mindhooks._errors import PluginError
from mindhooks._specs import PROJECT, SPECS


@dataclass(frozen=True, slots=True)
class Implementation:
    """One function of one plugin that implements one hook."""

    origin: Origin
    hook: str
    function: Callable[..., Any]
    positional: tuple[str, ...]
    named: tuple[str, ...]
    is_async: bool
    is_wrapper: bool
    old_style: bool
    tryfirst: bool
    trylast: bool

    def call(self, arguments: Mapping[str, object]) -> Any:
        """Call the function with those of the hook's arguments that it takes."""
        return self.function(
            *(arguments[name] for name in self.positional),
            **{name: arguments[name] for name in self.named},
        )

    def __str__(self) -> str:
        return f"{self.origin}: {self.hook}"


def find_implementations(plugin: object, origin: Origin) -> list[Implementation]:
    """Every hook implementation on ``plugin``, without evaluating a property of it.

    Raises:
        PluginError: one of them is wrong.
    """
    manager = pluggy.PluginManager(PROJECT)
    found = []
    for name in dir(plugin):
        options = _options(manager, plugin, name)
        if options is None:
            continue
        hook = options.get("specname") or name
        if hook in SPECS:
            found.append(_implementation(getattr(plugin, name), hook, origin, options))
        elif not options.get("optionalhook"):
            raise PluginError(f"{hook} is not a hook; the hooks are {', '.join(SPECS)}")
    return found


def _options(
    manager: pluggy.PluginManager, plugin: object, name: str
) -> pluggy.HookimplOpts | None:
    static = inspect.getattr_static(plugin, name, None)
    if not _is_stored_as_is(static) or _is_empty_slot(plugin, name, static):
        return None
    options = manager.parse_hookimpl_opts(plugin, name)
    if options is None and isinstance(static, staticmethod | classmethod):
        # pluggy before 1.7 misses a marker that stands above @staticmethod or @classmethod.
        options = manager.parse_hookimpl_opts(types.SimpleNamespace(**{name: static}), name)
    return options


def _is_stored_as_is(static: object) -> bool:
    """Whether getting this attribute runs no code of the plugin, as a property's would."""
    return not hasattr(type(static), "__get__") or isinstance(
        static,
        types.FunctionType
        | types.MethodType
        | types.BuiltinFunctionType
        | types.MemberDescriptorType
        | staticmethod
        | classmethod,
    )


def _is_empty_slot(plugin: object, name: str, static: object) -> bool:
    return isinstance(static, types.MemberDescriptorType) and not hasattr(plugin, name)


def _implementation(
    function: Callable[..., Any], hook: str, origin: Origin, options: pluggy.HookimplOpts
) -> Implementation:
    old_style = bool(options.get("hookwrapper"))
    is_wrapper = old_style or bool(options.get("wrapper"))
    is_async = inspect.iscoroutinefunction(function)
    if inspect.isasyncgenfunction(function) or (is_async and is_wrapper):
        raise PluginError(f"{hook}: neither a wrapper nor a generator may be async")
    if is_async and hook == "on_trigger":
        raise PluginError("on_trigger may not be async: it gives its work to a TaskHandle")
    if inspect.isgeneratorfunction(function) != is_wrapper:
        wrong = "is a wrapper but does not yield" if is_wrapper else "yields but is no wrapper"
        raise PluginError(f"{hook} {wrong}")
    positional, named = _parameters(function, hook)
    return Implementation(
        origin=origin,
        hook=hook,
        function=function,
        positional=positional,
        named=named,
        is_async=is_async,
        is_wrapper=is_wrapper,
        old_style=old_style,
        tryfirst=bool(options.get("tryfirst")),
        trylast=bool(options.get("trylast")),
    )


def _parameters(function: Callable[..., Any], hook: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    allowed = tuple(inspect.signature(SPECS[hook]).parameters)
    positional: list[str] = []
    named: list[str] = []
    for parameter in _named_parameters(function):
        if parameter.name in allowed:
            only = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
            (positional if only else named).append(parameter.name)
        elif parameter.default is inspect.Parameter.empty:
            raise PluginError(
                f"{hook} has no argument {parameter.name!r}; it has {', '.join(allowed)}"
            )
    return tuple(positional), tuple(named)


def _named_parameters(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in variadic:
            yield parameter
