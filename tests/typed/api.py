"""The public API as type checkers see it: checked by mypy, never run.

A wrong call carries ``type: ignore`` with its error code: mypy complains once it is no error.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_type

import pluggy

import mindscore
from mindhooks import (
    Activity,
    BaseScorer,
    Context,
    FinetuneCandidate,
    FinetuneStats,
    Generated,
    MemoryScore,
    MemoryStats,
    Mind,
    MindCommand,
    MindState,
    RangeScore,
    Registry,
    Run,
    Scorer,
    ScoreResult,
    TaskHandle,
    ThreadedRegistry,
    TrainingSample,
    TrainingSink,
    Trigger,
    WirePrompt,
    hookimpl,
    in_thread,
    load_scorer,
    load_sink,
)
from mindhooks.testing import StubMind
from mindscore.session.attach import Attached

# -- a plugin, a scorer, a sink and a host of a third party ----------------------------------------


class Flow:
    """A plugin that answers a command of its own."""

    commands = ("acme-score",)

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table

    @hookimpl
    def on_trigger(self, command: str, mind: Mind, registry: Registry) -> Trigger | None:
        if command not in self.commands:
            return None
        handle = registry.task_handle("acme")
        assert_type(handle, TaskHandle)
        return handle.trigger_if_idle(lambda: self._run(command, mind, registry))

    async def _run(self, command: str, mind: Mind, registry: Registry) -> None:
        async with registry.run(command) as run:
            assert_type(run, Run)
            assert_type(run.settings, Mapping[str, Any])
            scorer = await registry.scorer()
            assert_type(scorer, Scorer)
            context = await mind.context()
            prompt = context.wire_prompt(range(len(context.conversation)), lambda key: key == "k")
            assert_type(prompt, WirePrompt)
            result = ScoreResult.of(await scorer.score([prompt]))
            assert_type(result.ranges[0][0].total, float)
            with mind.activity("acme") as activity:
                assert_type(activity, Activity)
                activity.update("acme: 1/2", done=1, total=2)
            mind.state.memory_scores["k"] = 1.0
            mind.changed()
            await registry.emit_score(MemoryScore("k", 1.0, "incremental", ()))
            registry.report(
                MemoryStats(outcomes={}, calls=1, prompt_tokens=2, computed_tokens=2, seconds=0.1)
            )


class Listener:
    """A plugin that listens, with fewer arguments than the hooks have."""

    @hookimpl
    async def on_score(self, score: MemoryScore, run: Run | None) -> None:
        assert_type(score.key, str)

    @hookimpl(tryfirst=True)
    def on_candidate(self, candidate: FinetuneCandidate) -> None:
        assert_type(candidate.continuation_ids, tuple[int, ...])

    @hookimpl
    def on_run_end(self, stats: MemoryStats | FinetuneStats | None, run: Run) -> None:
        assert_type(run.id, str)


class DerivedScorer(BaseScorer):
    """A scorer that can score, and nothing else."""

    model = "acme"
    batch_size = 8

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        return ScoreResult([[RangeScore(-1.0) for _ in it.ranges] for it in prompts])


class OwnScorer:
    """A scorer that derives from nothing and returns plain lists."""

    def __init__(self, server: Mapping[str, Any]) -> None:
        self.model = str(server["model"])

    async def score(self, prompts: Sequence[WirePrompt]) -> list[list[RangeScore]]:
        return [[RangeScore(-1.0, (-1.0,)) for _ in it.ranges] for it in prompts]

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        return Generated((1, 2), "said")

    async def tokenize(self, text: str) -> list[int]:
        return [len(text)]

    async def aclose(self) -> None:
        return None


class NoScorer:
    """An object that is no scorer: it cannot score."""

    model = "acme"


class Sink:
    """A sink for training samples."""

    destination = "here"
    wants_text = False
    wants_rejected = False

    async def send(self, samples: Sequence[TrainingSample], key: str) -> str:
        assert_type(samples[0].context_ids, tuple[int, ...])
        return key

    async def aclose(self) -> None:
        return None


class Host:
    """A host with the whole of ``Mind``."""

    def __init__(self) -> None:
        self.state = MindState()

    async def context(self) -> Context:
        return Context((), (), ())

    def activity(self, message: str) -> Activity:
        return StubMind().activity(message)

    def changed(self) -> None:
        return None


async def host_a_registry(candidates: Sequence[FinetuneCandidate]) -> None:
    """Use a registry as a host does."""
    async with Registry(Host(), {}, scorer=DerivedScorer()) as registry:
        assert_type(registry, Registry)
        assert_type(registry.plugin_manager, pluggy.PluginManager)
        registry.load_entry_points()
        registry.register(Flow({}), name="acme")
        registry.register(Listener())
        assert_type(registry.dispatch(MindCommand.SCORE), dict[str, Trigger])
        assert_type(registry.dispatch("acme-score"), dict[str, Trigger])
        assert_type(registry.cancel("acme-score"), list[str])
        assert_type(registry.run("acme-score"), AbstractAsyncContextManager[Run])
        assert_type([it.name for it in registry.plugins()], list[str])
        registry.settings = {"memory": {"interval_s": 0}}
        for candidate in candidates:
            await registry.emit_candidate(candidate)
        await registry.wait_idle()
    Registry(StubMind(), {}, scorer=OwnScorer({}))
    ThreadedRegistry(Host(), {})
    assert_type(await in_thread(len, "text"), int)


async def use_mindscore(
    context: Context, candidates: Sequence[FinetuneCandidate], sink: Sink
) -> None:
    """Use what ``mindscore`` and the loaders export."""
    scorer = await load_scorer({"scorer": "toy"})
    assert_type(scorer, Scorer)
    assert_type(await scorer.tokenize("text"), list[int])
    assert_type(await mindscore.score_memory(context, "k", scorer, response_window=5), float)
    assert_type(await mindscore.score_memory(context, "k", OwnScorer({})), float)
    assert_type(await mindscore.send_to_train(candidates, {}), str)
    assert_type(mindscore.attach(lambda: [{"role": "user", "content": "hello"}]), Attached)
    assert_type(await load_sink("jsonl", {}, {}), TrainingSink)
    third_party: TrainingSink = sink
    await third_party.send([], "0" * 32)


async def misuse(registry: Registry, context: Context, scorer: Scorer) -> None:
    """Call each wrongly, as a type checker must notice."""
    Registry(object(), {})  # type: ignore[arg-type]
    Registry(StubMind(), {}, scorer=NoScorer())  # type: ignore[arg-type]
    Registry(StubMind(), {}, DerivedScorer())  # type: ignore[call-arg]
    registry.dispatch(1)  # type: ignore[arg-type]
    registry.report(1.0)  # type: ignore[arg-type]
    registry.task_handle("acme").trigger(misuse)  # type: ignore[arg-type]
    await registry.emit_score(1.0)  # type: ignore[arg-type]
    MemoryScore("k", 1.0, "partial", ())  # type: ignore[arg-type]
    context.wire_prompt(5, lambda key: True)  # type: ignore[arg-type]
    context.wire_prompt(range(1), {"k"})  # type: ignore[arg-type]
    context.system = ()  # type: ignore[misc]
    await scorer.score(["text"])  # type: ignore[list-item]
    await mindscore.score_memory(context, "k", NoScorer())  # type: ignore[arg-type]
    await mindscore.score_memory(context, "k", scorer, 5)  # type: ignore[call-arg]
    await load_scorer("toy")  # type: ignore[arg-type]
