"""The contract between an agent framework and the plugins that measure its memories.

A host builds a ``Registry`` over its ``Mind`` and dispatches commands; a plugin implements the
hooks ``on_trigger``, ``on_score`` and ``on_candidate`` with ``hookimpl``.
"""

from mindhooks._context import Context, Image, Node, Part, Role, WirePrompt
from mindhooks._errors import (
    MindhooksError,
    PluginError,
    ScorerError,
    ScorerUnavailable,
    UnhandledCommand,
    UnknownScorer,
)
from mindhooks._loading import PluginInfo, load_sink
from mindhooks._mind import Activity, Mind, MindState
from mindhooks._registry import Registry, emitting_registry
from mindhooks._scorer import Generated, RangeScore, Scorer, Scores
from mindhooks._sink import NotAccepted, SinkError, TrainingSample, TrainingSink, UnknownSink
from mindhooks._specs import MindCommand, Trigger, hookimpl, hookspec
from mindhooks._tasks import TaskHandle, in_thread
from mindhooks._threaded import ThreadedRegistry
from mindhooks._values import (
    FinetuneCandidate,
    FinetuneStats,
    MemoryScore,
    MemoryStats,
    Outcome,
    ResponseDivergence,
)

__all__ = [
    "Activity",
    "Context",
    "FinetuneCandidate",
    "FinetuneStats",
    "Generated",
    "Image",
    "MemoryScore",
    "MemoryStats",
    "Mind",
    "MindCommand",
    "MindState",
    "MindhooksError",
    "Node",
    "NotAccepted",
    "Outcome",
    "Part",
    "PluginError",
    "PluginInfo",
    "RangeScore",
    "Registry",
    "ResponseDivergence",
    "Role",
    "Scorer",
    "ScorerError",
    "ScorerUnavailable",
    "Scores",
    "SinkError",
    "TaskHandle",
    "ThreadedRegistry",
    "TrainingSample",
    "TrainingSink",
    "Trigger",
    "UnhandledCommand",
    "UnknownScorer",
    "UnknownSink",
    "WirePrompt",
    "emitting_registry",
    "hookimpl",
    "hookspec",
    "in_thread",
    "load_sink",
]
