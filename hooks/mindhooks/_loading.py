"""From an entry point to a plugin object, a scorer or a sink."""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mindhooks._complaints import Origin, describe, log
from mindhooks._errors import MindhooksError, PluginError, ScorerError, UnknownScorer
from mindhooks._scorer import Scorer
from mindhooks._sink import SinkError, TrainingSink, UnknownSink
from mindhooks._specs import PROJECT
from mindhooks._tasks import in_thread

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

SCORERS = "mindhooks.scorers"
"""Entry-point group of scorers."""

SINKS = "mindhooks.sinks"
"""Entry-point group of training sinks."""

WANTED_OF_SINKS = ("destination", "wants_text", "wants_rejected", "send", "aclose")

DISABLE = "MINDSCORE_DISABLE_PLUGINS"
"""Environment variable: names of plugins to leave out, with commas between them."""

EVERY = "*"
"""Stands there for all but mindscore's own."""

OWN = "mindscore"
"""The distribution of the default plugins."""


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What a registry knows of one plugin; ``error`` says why one is not registered."""

    name: str
    distribution: str | None
    version: str | None
    hooks: tuple[str, ...]
    enabled: bool
    error: str | None


def plugin_entry_points() -> list[tuple[Origin, EntryPoint]]:
    """All entry points of plugins: mindscore's own first, then by distribution and name."""
    # Here, as below: this import takes as long as the rest of the package.
    from importlib.metadata import entry_points

    found = [(_origin(entry), entry) for entry in entry_points(group=PROJECT)]
    return sorted(
        found,
        key=lambda it: (it[0].distribution != OWN, it[0].distribution or "", it[0].name),
    )


def _origin(entry: EntryPoint) -> Origin:
    # Not dist.name, which fails where the metadata lack it.
    metadata: Any = entry.dist.metadata if entry.dist is not None else {}
    return Origin(entry.name, metadata.get("Name"), metadata.get("Version"))


def find_disabled(origins: Iterable[Origin], configured: Iterable[str]) -> set[Origin]:
    """Those that ``plugins.disabled`` or the environment leaves out.

    A name that is nobody's is logged as a warning.
    """
    installed = list(origins)
    listed = {name.strip() for name in os.environ.get(DISABLE, "").split(",")} - {""}
    every = EVERY in listed
    sources = {"plugins.disabled": set(configured), DISABLE: listed - {EVERY}}
    for source, names in sources.items():
        for name in sorted(names - {origin.name for origin in installed}):
            log.warning("%s names %r, but no plugin is called so", source, name)
    named = set().union(*sources.values())
    return {it for it in installed if it.name in named or (every and it.distribution != OWN)}


def load_plugin(entry: EntryPoint, table: Mapping[str, Any]) -> tuple[object, bool]:
    """The plugin that ``entry`` resolves to, and whether it was made here.

    A class or function is called with a copy of ``table``; anything else is the plugin as it is.
    """
    target: Any = entry.load()
    if not (inspect.isclass(target) or inspect.isroutine(target)):
        return target, False
    build: Callable[[dict[str, Any]], object] = target
    plugin = build(copy.deepcopy(dict(table)))
    if inspect.iscoroutine(plugin):
        plugin.close()
        raise PluginError("the entry point is async: it must return the plugin itself")
    if plugin is None:
        raise PluginError("the entry point returned None instead of a plugin")
    return plugin, True


def find_scorer(name: str) -> EntryPoint:
    """The entry point of the scorer called ``name``."""
    return _find(
        SCORERS,
        name,
        lambda names: UnknownScorer(
            f"server.scorer: no scorer is called {name!r}; installed: {names}"
        ),
    )


def _find(group: str, name: str, unknown: Callable[[str], MindhooksError]) -> EntryPoint:
    """The entry point of that name; ``unknown`` makes an error of the names that there are."""
    from importlib.metadata import entry_points

    known = entry_points(group=group)
    for entry in known:
        if entry.name == name:
            return entry
    raise unknown(", ".join(sorted(known.names)) or "none")


def make_scorer(name: str, factory: Any, table: Mapping[str, Any]) -> Scorer:
    """Call a scorer's entry point with a copy of the ``[server]`` table."""
    scorer = factory(copy.deepcopy(dict(table)))
    if inspect.iscoroutine(scorer):
        scorer.close()
        raise ScorerError(f"scorer {name!r} is async: its callable must return the scorer itself")
    wanted = ("model", "score", "generate", "tokenize", "aclose")
    missing = [attribute for attribute in wanted if not hasattr(scorer, attribute)]
    if missing:
        kind = type(scorer).__name__
        raise ScorerError(f"scorer {name!r} made a {kind} without {', '.join(missing)}")
    made: Scorer = scorer
    return made


async def load_sink(name: str, train: Mapping[str, Any], server: Mapping[str, Any]) -> TrainingSink:
    """The sink called ``name``, made from copies of the ``[train]`` and ``[server]`` tables.

    Raises:
        UnknownSink: there is none of that name; the text lists those there are.
        SinkError: it cannot be built, or is no sink.
        MindhooksError: what it raises itself.
    """
    entry = await in_thread(
        _find,
        SINKS,
        name,
        lambda names: UnknownSink(f"train.sink: no sink is called {name!r}; installed: {names}"),
    )
    try:
        factory = await in_thread(entry.load)
        sink = factory(copy.deepcopy(dict(train)), copy.deepcopy(dict(server)))
    except (MindhooksError, KeyboardInterrupt, asyncio.CancelledError):
        raise
    # A sink's module is a plugin's code too.
    except BaseException as error:
        raise SinkError(f"sink {name!r} cannot be built: {describe(error)}") from error
    if inspect.iscoroutine(sink):
        sink.close()
        raise SinkError(f"sink {name!r} is async: its callable must return the sink itself")
    if missing := [attribute for attribute in WANTED_OF_SINKS if not hasattr(sink, attribute)]:
        kind = type(sink).__name__
        raise SinkError(f"sink {name!r} made a {kind} without {', '.join(missing)}")
    made: TrainingSink = sink
    return made
