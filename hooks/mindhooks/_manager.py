"""The pluggy manager of project ``mindhooks``: hook implementations, found and checked."""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from mindhooks import _specs
from mindhooks._errors import PluginError, PluginSource, format_error
from mindhooks._implementations import (
    AsyncImplementation,
    Implementation,
    PlainImplementation,
    match_parameters,
)
from mindhooks._specs import PROJECT, SPECS

if TYPE_CHECKING:
    from importlib.metadata import Distribution

INSTEAD_OF_WRAPPERS = (
    "use a plain or async listener instead, with tryfirst=True to be told before others; to change "
    "what a command does, disable the plugin that answers it and answer it with a flow of your own"
)

_READ_WITHOUT_CODE = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MemberDescriptorType,
    staticmethod,
    classmethod,
)


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin that a registry has met.

    Attributes:
        name: the name it is, or would be, registered under.
        distribution: the distribution that brings it; ``None`` for one registered by hand.
        version: the distribution's.
        hooks: names of the hooks that it implements.
        commands: the commands that it says it answers, in its attribute ``commands``.
        enabled: false for one that the settings, the environment or ``set_blocked`` leaves out.
        error: why it could not be loaded or registered; else ``None``.
    """

    name: str
    distribution: str | None
    version: str | None
    hooks: tuple[str, ...]
    commands: tuple[str, ...]
    enabled: bool
    error: str | None

    @property
    def is_registered(self) -> bool:
        """True where the plugin is registered, neither left out nor failed."""
        return self.enabled and self.error is None

    @property
    def source(self) -> PluginSource:
        """The plugin's name and distribution."""
        return PluginSource(self.name, self.distribution, self.version)


class HookManager(pluggy.PluginManager):
    """A plugin manager that checks a plugin whole before it registers any of it.

    ``time_limit`` returns the seconds that an async listener may take. Registering evaluates no
    property of the plugin, whatever the version of pluggy.
    """

    def __init__(self, time_limit: Callable[[], float]) -> None:
        super().__init__(PROJECT)
        self.add_hookspecs(_specs)
        self.workers: dict[asyncio.Task[None], AsyncImplementation] = {}
        """The tasks that work off listeners' queues."""
        self._time_limit = time_limit
        self._implementations: dict[pluggy.HookImpl, Implementation] = {}
        self._infos: list[PluginInfo] = []
        self._distributions: list[tuple[object, Distribution]] = []

    def register(self, plugin: object, name: str | None = None) -> str | None:
        """Register a module, a class or an instance; without a name, under that of its class.

        Returns:
            The name; ``None`` where the name is blocked.

        Raises:
            PluginError: the plugin breaks the hook contract, or it or its name is registered
                already; nothing of it is registered then.
        """
        source = PluginSource(name or self.get_canonical_name(plugin))
        try:
            return self.add(plugin, source)
        except PluginError as error:
            self.note(source, error=format_error(error))
            raise PluginError(f"{source}: {error}") from None

    def add(
        self, plugin: object, source: PluginSource, distribution: Distribution | None = None
    ) -> str | None:
        """Register a plugin that comes from ``source``, under its name, as ``register`` does."""
        name = source.name
        if self.is_blocked(name):
            self.note(source, enabled=False)
            return None
        self.require_free(name)
        if plugin is None:
            raise PluginError("None is no plugin")
        if self.is_registered(plugin):
            known = self.get_name(plugin)
            raise PluginError(f"it, or a plugin that is equal to it, is registered as {known!r}")
        for hook, function, options in self._find_marked(plugin):
            check_implementation(hook, function, options)
        commands = read_commands(plugin)
        # By identity: pluggy before 1.7 leaves some implementations behind when it unregisters.
        before = set(self._registered())
        try:
            super().register(plugin, name)
        except pluggy.PluginValidationError as error:
            # pluggy before 1.7 registers the plugin before it validates it.
            super().unregister(plugin, name)
            raise PluginError(format_error(error)) from error
        hooks = []
        for hook in SPECS:
            for found in getattr(self.hook, hook).get_hookimpls():
                if found not in before:
                    self._implementations[found] = self._implement(found, hook, source)
                    hooks.append(hook)
        if distribution is not None:
            self._distributions.append((plugin, distribution))
        self.note(source, hooks=tuple(dict.fromkeys(hooks)), commands=commands)
        return name

    def require_free(self, name: str) -> None:
        """Raise ``PluginError`` where a plugin of that name is registered."""
        if self.has_plugin(name):
            raise PluginError(f"another plugin is already called {name!r}")

    def unregister(self, plugin: object | None = None, name: str | None = None) -> Any | None:
        """Unregister a plugin: it hears of nothing more, not even of what is queued for it."""
        name = name or self.get_name(plugin)
        found_as = self._registered_source(name)
        removed = super().unregister(plugin, name)
        for found in [it for it in self._implementations if it.plugin is removed]:
            self._implementations.pop(found).remove()
        if removed is not None:
            self._infos = [it for it in self._infos if it.source != found_as]
        self._distributions = [it for it in self._distributions if it[0] is not removed]
        return removed

    def set_blocked(self, name: str) -> None:
        """Block a name; a plugin that is registered under it is unregistered and left out."""
        found_as = self._registered_source(name)
        super().set_blocked(name)
        if found_as is not None:
            self.note(found_as, enabled=False)

    def _registered_source(self, name: str | None) -> PluginSource | None:
        return next((it.source for it in self._infos if it.name == name and it.is_registered), None)

    def implementations(self, hook: str) -> list[Implementation]:
        """Return the implementations of a hook in the order in which pluggy calls them."""
        found = reversed(getattr(self.hook, hook).get_hookimpls())
        return [self._implementations[it] for it in found if it in self._implementations]

    def infos(self) -> list[PluginInfo]:
        """Return every plugin that is registered, was left out or failed, the earliest first."""
        return list(self._infos)

    def note(
        self,
        source: PluginSource,
        *,
        hooks: tuple[str, ...] = (),
        commands: tuple[str, ...] = (),
        enabled: bool = True,
        error: str | None = None,
    ) -> None:
        """Add a plugin to ``infos``, in place of its row from when it was not registered."""
        self._infos = [it for it in self._infos if it.source != source or it.is_registered]
        origin = (source.name, source.distribution, source.version)
        self._infos.append(PluginInfo(*origin, hooks, commands, enabled, error))

    def list_plugin_distinfo(self) -> list[tuple[Any, Any]]:
        """Return ``(plugin, distribution)`` for each plugin that came from an entry point."""
        added = [(plugin, _DistributionInfo(it)) for plugin, it in self._distributions]
        return [*super().list_plugin_distinfo(), *added]

    def list_plugin_distributions(self) -> list[tuple[Any, Distribution]]:
        """Return ``list_plugin_distinfo`` with plain distributions, as pluggy 1.7 does."""
        inherited = getattr(super(), "list_plugin_distributions", list)
        return [*inherited(), *self._distributions]

    def get_canonical_name(self, plugin: object) -> str:
        """Return the name of the module or class, or of an instance's class."""
        # Not plugin.__name__ on an instance: that may be a property.
        named = plugin if isinstance(plugin, types.ModuleType | type) else type(plugin)
        return named.__name__

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return the options of a marked function, without evaluating a property."""
        stored = inspect.getattr_static(plugin, name, None)
        if stored is None or not _can_be_read(plugin, name, stored):
            return None
        options = super().parse_hookimpl_opts(plugin, name)
        if options is None and isinstance(stored, staticmethod | classmethod):
            # pluggy before 1.7 misses a marker that stands above @staticmethod or @classmethod.
            options = super().parse_hookimpl_opts(types.SimpleNamespace(**{name: stored}), name)
        return options

    def _find_marked(
        self, plugin: object
    ) -> Iterator[tuple[str, Callable[..., Any], pluggy.HookimplOpts]]:
        for name in dir(plugin):
            options = self.parse_hookimpl_opts(plugin, name)
            if options is not None:
                yield options.get("specname") or name, getattr(plugin, name), options

    def _registered(self) -> Iterator[pluggy.HookImpl]:
        for hook in SPECS:
            yield from getattr(self.hook, hook).get_hookimpls()

    def _implement(self, found: pluggy.HookImpl, hook: str, source: PluginSource) -> Implementation:
        if not inspect.iscoroutinefunction(found.function):
            return PlainImplementation(found.function, hook, source)
        return AsyncImplementation(
            found.function,
            hook,
            source,
            is_awaited=found.tryfirst,
            time_limit=self._time_limit,
            workers=self.workers,
        )


def check_implementation(
    hook: str, function: Callable[..., Any], options: pluggy.HookimplOpts
) -> None:
    """Refuse an implementation that breaks the hook contract.

    Raises:
        PluginError: says what is wrong, and what to do instead.
    """
    if hook not in SPECS:
        if options.get("optionalhook"):
            return
        raise PluginError(f"{hook} is not a hook; the hooks are {', '.join(SPECS)}")
    if options.get("wrapper") or options.get("hookwrapper"):
        raise PluginError(
            f"{hook} is a hook wrapper, which is not supported: {INSTEAD_OF_WRAPPERS}"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"{hook} yields: an implementation is a plain function or 'async def'")
    if hook == "on_trigger" and inspect.iscoroutinefunction(function):
        raise PluginError("on_trigger may not be async: it gives its work to a TaskHandle")
    match_parameters(function, hook)


def read_commands(plugin: object) -> tuple[str, ...]:
    """Return the commands that a plugin names in ``commands``, without evaluating a property.

    Any iterable of strings will do; a set comes in alphabetical order.
    """
    commands = inspect.getattr_static(plugin, "commands", ())
    if isinstance(commands, types.MemberDescriptorType):
        # A slot, which may be empty.
        commands = getattr(plugin, "commands", ())
    if isinstance(commands, str):
        return (str(commands),)
    if not isinstance(commands, Iterable):
        return ()
    try:
        named = [str(it) for it in commands if isinstance(it, str)]
    except Exception as error:
        raise PluginError(f"its commands cannot be read: {format_error(error)}") from error
    return tuple(sorted(named) if isinstance(commands, Set) else named)


def _can_be_read(plugin: object, name: str, stored: object) -> bool:
    """Return whether getting this attribute runs no code of the plugin, as a property's would."""
    if isinstance(stored, types.MemberDescriptorType):
        # A slot, which may be empty.
        return hasattr(plugin, name)
    return isinstance(stored, _READ_WITHOUT_CODE) or not hasattr(type(stored), "__get__")


class _DistributionInfo:
    """A distribution as pluggy's own ``list_plugin_distinfo`` shows one."""

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution

    @property
    def project_name(self) -> str:
        """The distribution's name."""
        return str(self._distribution.metadata["name"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._distribution, name)
