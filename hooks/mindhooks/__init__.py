"""The contract between an agent framework and the plugins that measure its memories.

A host builds a ``Registry`` over its ``Mind`` and dispatches commands; a plugin implements the
hooks ``on_trigger``, ``on_score``, ``on_candidate`` and ``on_run_end`` with ``hookimpl``.
"""

from mindhooks._errors import (
    MindhooksError,
    NotAccepted,
    PluginError,
    ScorerError,
    ScorerUnavailable,
    SinkError,
    UnhandledCommand,
    UnknownScorer,
    UnknownSink,
)
from mindhooks._loading import load_scorer, load_sink
from mindhooks._manager import PluginInfo
from mindhooks._protocols import (
    BaseScorer,
    Generated,
    KnockOut,
    RangeScore,
    Scorer,
    ScorerCapabilities,
    ScoreResult,
    TrainingSample,
    TrainingSink,
)
from mindhooks._registry import Registry
from mindhooks._specs import MindCommand, Trigger, hookimpl, hookspec
from mindhooks._tasks import TaskHandle, in_thread
from mindhooks._threaded import ThreadedRegistry
from mindhooks._values import (
    Activity,
    Context,
    FinetuneCandidate,
    FinetuneStats,
    Image,
    MemoryScore,
    MemoryStats,
    Mind,
    MindState,
    Node,
    Outcome,
    Part,
    ResponseDivergence,
    Role,
    Run,
    WirePrompt,
)

__all__ = [
    "Activity",
    "BaseScorer",
    "Context",
    "FinetuneCandidate",
    "FinetuneStats",
    "Generated",
    "Image",
    "KnockOut",
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
    "Run",
    "ScoreResult",
    "Scorer",
    "ScorerCapabilities",
    "ScorerError",
    "ScorerUnavailable",
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
    "hookimpl",
    "hookspec",
    "in_thread",
    "load_scorer",
    "load_sink",
]
