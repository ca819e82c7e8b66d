"""From an entry point to a plugin object, a scorer or a sink."""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mindhooks._errors import (
    MindhooksError,
    PluginError,
    PluginSource,
    ScorerError,
    SinkError,
    UnknownScorer,
    UnknownSink,
    format_error,
    log,
    warn_if_slow,
)
from mindhooks._protocols import Scorer, TrainingSink
from mindhooks._specs import PROJECT
from mindhooks._tasks import in_thread

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

SCORER_GROUP = "mindhooks.scorers"
SINK_GROUP = "mindhooks.sinks"
SCORER_ATTRIBUTES = ("model", "score", "generate", "tokenize", "aclose")
SINK_ATTRIBUTES = ("destination", "wants_text", "wants_rejected", "send", "aclose")

DEFAULT_SCORER = "local"

DISABLE_VARIABLE = "MINDSCORE_DISABLE_PLUGINS"
"""Environment variable: names of plugins to leave out, with commas between them."""

DISABLE_THIRD_PARTY = "*"
"""Stands in that variable for all plugins but mindscore's own."""

OWN_DISTRIBUTION = "mindscore"


def plugin_entry_points() -> list[tuple[PluginSource, EntryPoint]]:
    """Return the entry points of plugins: mindscore's own first, then by distribution and name."""
    found = [(_source_of(entry), entry) for entry in _entry_points(PROJECT)]
    return sorted(
        found,
        key=lambda it: (
            it[0].distribution != OWN_DISTRIBUTION,
            it[0].distribution or "",
            it[0].name,
        ),
    )


def _source_of(entry: EntryPoint) -> PluginSource:
    # Not dist.name, which fails where the metadata lack it.
    metadata: Any = entry.dist.metadata if entry.dist is not None else {}
    return PluginSource(entry.name, metadata.get("Name"), metadata.get("Version"))


def find_disabled(sources: Iterable[PluginSource], configured: Iterable[str]) -> set[PluginSource]:
    """Return those that ``plugins.disabled`` or the environment leaves out.

    A name that no plugin has is logged as a warning.
    """
    installed = list(sources)
    listed = {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",")} - {""}
    third_party = DISABLE_THIRD_PARTY in listed
    settings = {
        "plugins.disabled": set(configured),
        DISABLE_VARIABLE: listed - {DISABLE_THIRD_PARTY},
    }
    for setting, names in settings.items():
        for name in sorted(names - {it.name for it in installed}):
            log.warning("%s names %r, but no plugin is called so", setting, name)
    named = set().union(*settings.values())
    return {
        it
        for it in installed
        if it.name in named or (third_party and it.distribution != OWN_DISTRIBUTION)
    }


def load_plugin(entry: EntryPoint, table: Mapping[str, Any]) -> tuple[object, bool]:
    """Return the plugin that ``entry`` resolves to, and whether it was made here.

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


async def load_scorer(server: Mapping[str, Any]) -> Scorer:
    """Make the scorer that ``scorer`` in the ``[server]`` table names, from a copy of the table.

    The caller closes it.

    Raises:
        UnknownScorer: no scorer of that name is installed; the text lists those that are.
        ScorerError: it cannot be built, or is no scorer.
        MindhooksError: its own.
    """
    name = server.get("scorer", DEFAULT_SCORER)
    if not isinstance(name, str):
        raise ScorerError("server.scorer: expected a string")
    entry = await _find(SCORER_GROUP, name, "server.scorer", UnknownScorer)
    scorer: Scorer = await _make(entry, "scorer", SCORER_ATTRIBUTES, ScorerError, server)
    return scorer


async def load_sink(name: str, train: Mapping[str, Any], server: Mapping[str, Any]) -> TrainingSink:
    """Make the training sink called ``name``, from copies of ``[train]`` and ``[server]``.

    The caller closes it.

    Raises:
        UnknownSink: no sink of that name is installed; the text lists those that are.
        SinkError: it cannot be built, or is no sink.
        MindhooksError: its own.
    """
    entry = await _find(SINK_GROUP, name, "train.sink", UnknownSink)
    sink: TrainingSink = await _make(entry, "sink", SINK_ATTRIBUTES, SinkError, train, server)
    return sink


async def _find(group: str, name: str, setting: str, unknown: type[MindhooksError]) -> EntryPoint:
    known = await in_thread(_entry_points, group)
    for entry in known:
        if entry.name == name:
            return entry
    kind = setting.split(".")[1]
    installed = ", ".join(sorted(known.names)) or "none"
    raise unknown(f"{setting}: no {kind} is called {name!r}; installed: {installed}")


def _entry_points(group: str) -> EntryPoints:
    # Imported here: it takes as long as the rest of the package.
    from importlib.metadata import entry_points

    return entry_points(group=group)


async def _make(
    entry: EntryPoint,
    kind: str,
    attributes: Iterable[str],
    failure: type[MindhooksError],
    *tables: Mapping[str, Any],
) -> Any:
    """Call what ``entry`` resolves to with copies of ``tables``; check what it returns."""
    subject = f"{kind} {entry.name!r}"
    try:
        factory = await in_thread(entry.load)
        with warn_if_slow(subject):
            made = factory(*(copy.deepcopy(dict(table)) for table in tables))
            if inspect.iscoroutine(made):
                made.close()
                raise failure(f"{subject} is async: its callable must return the {kind} itself")
            missing = [name for name in attributes if not hasattr(made, name)]
    except (MindhooksError, KeyboardInterrupt, asyncio.CancelledError):
        raise
    # Its module is a plugin's code too.
    except BaseException as error:
        raise failure(f"{subject} cannot be built: {format_error(error)}") from error
    if missing:
        raise failure(f"{subject} made a {type(made).__name__} without {', '.join(missing)}")
    return made


def read_model(scorer: Scorer, otherwise: object) -> object:
    """Return the model that a scorer names, or ``otherwise``.

    Raises:
        ScorerError: reading it raises anything but a ``MindhooksError``, which goes on.
    """
    try:
        return str(getattr(scorer, "model", otherwise))
    except (MindhooksError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ScorerError(f"the scorer's model cannot be read: {format_error(error)}") from error
