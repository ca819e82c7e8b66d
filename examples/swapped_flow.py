"""A flow that takes the place of memory-scoring: it answers ``score`` for the newest response.

The default flow scores what is due, over many responses. This one says what each memory did to
the last response only: one prompt with all memories, and one without each.

To swap a flow, disable the default one and install another that answers its command::

    [plugins]
    disabled = ["memory-scoring"]
"""

import asyncio
import operator
import time
from collections.abc import AsyncIterator
from functools import partial

from mindhooks import (
    Context,
    MemoryScore,
    MemoryStats,
    Mind,
    MindCommand,
    Node,
    Outcome,
    Registry,
    ResponseDivergence,
    Role,
    Run,
    Scorer,
    ScorerError,
    ScoreResult,
    Trigger,
    WirePrompt,
    hookimpl,
)
from mindhooks.testing import StubMind


class LastResponse:
    """Answers ``score``; registered under the name ``last-response``."""

    commands = (MindCommand.SCORE,)

    @hookimpl
    def on_trigger(self, command: str, mind: Mind, registry: Registry) -> Trigger | None:
        """Return at once: the work is a task, one at a time."""
        if command != MindCommand.SCORE:
            return None
        handle = registry.task_handle("last-response")
        return handle.trigger_if_idle(lambda: self.score(command, mind, registry))

    async def score(self, command: str, mind: Mind, registry: Registry) -> None:
        """Score within a run: listeners get it with each score, and are told its end."""
        async with registry.run(command) as run:
            mind.state.scoring_in_flight = True
            mind.changed()
            outcomes: dict[str, Outcome] = {}
            prompts: list[WirePrompt] = []
            error = None
            try:
                with mind.activity("scoring: baseline"):
                    context, scorer = await mind.context(), await registry.scorer()
                    async for score in score_last(context, scorer, prompts):
                        outcomes[score.key] = Outcome("scored")
                        await registry.emit_score(score)
            except ScorerError as failure:
                error = str(failure)
            finally:
                stats = MemoryStats(
                    outcomes=outcomes,
                    calls=len(prompts),
                    prompt_tokens=sum(len(prompt.tokens) for prompt in prompts),
                    computed_tokens=None,
                    seconds=time.time() - run.started_at,
                    error=error,
                )
                mind.state.scoring_in_flight = False
                mind.state.memory_last_run = stats
                mind.changed()
                registry.report(stats)


async def score_last(
    context: Context, scorer: Scorer, prompts: list[WirePrompt]
) -> AsyncIterator[MemoryScore]:
    """Yield a score for each memory; what is sent is appended to ``prompts``."""
    nodes = (*context.system, *context.identity, *context.conversation)
    keys = dict.fromkeys(key for node in nodes for key in node.memory_keys())
    window = range(len(context.conversation))
    # A prompt has one range for each response, in order. It is one prompt, unless the model's chat
    # template prints messages differently later on: then the last one has the newest response.
    *_, with_all = await context.wire_prompts(window, lambda _: False) or [None]
    if with_all is None or not with_all.ranges:
        return
    newest = with_all.node_ids[-1]
    [entry] = [index for index in window if context.conversation[index].id == newest]
    baseline = await total_of_last(scorer, with_all, prompts)
    for key in keys:
        [*_, without] = await context.wire_prompts(window, partial(operator.eq, key))
        signed = baseline - await total_of_last(scorer, without, prompts)
        divergence = ResponseDivergence(entry, newest, max(0.0, signed), signed)
        yield MemoryScore(key, divergence.divergence, "incremental", (divergence,))


async def total_of_last(scorer: Scorer, prompt: WirePrompt, prompts: list[WirePrompt]) -> float:
    """Return the log-probability of the last response of ``prompt``, in nats."""
    last = WirePrompt(prompt.tokens, prompt.images, prompt.ranges[-1:], prompt.node_ids[-1:])
    prompts.append(last)
    # A scorer may return a plain list of lists; this makes a ScoreResult of either.
    answer = ScoreResult.of(await scorer.score([last]))
    return answer.ranges[0][0].total


# -- a host to run it in ---------------------------------------------------------------------------


class Screen:
    """A listener that prints."""

    @hookimpl
    def on_score(self, score: MemoryScore) -> None:
        print(f"{score.key}: {score.score:.1f} nats")

    @hookimpl
    def on_run_end(self, stats: MemoryStats | None, run: Run) -> None:
        calls = stats.calls if stats is not None else 0
        print(f"{run.command} with {run.model}: {calls} calls")


async def make_conversation(scorer: Scorer) -> Context:
    async def ids(text: str) -> tuple[int, ...]:
        return tuple(await scorer.tokenize(text))

    header, said = await ids("assistant:"), await ids("Max barked.")
    tea = Node("m1", Role.MEMORY, "", await ids("Nora drinks rooibos."), memory_key="tea")
    dog = Node("m2", Role.MEMORY, "", await ids("Her dog is Max."), memory_key="dog")
    asked = Node("u1", Role.USER, "", await ids("user: Who barked?"))
    body = (len(header), len(header) + len(said))
    answer = Node("a1", Role.ASSISTANT, "Max barked.", (*header, *said), body=body)
    return Context(system=(), identity=(tea, dog), conversation=(asked, answer))


async def main() -> None:
    settings = {
        "server": {"scorer": "toy"},
        "plugins": {"disabled": ["memory-scoring", "score-recorder"]},
    }
    mind = StubMind()
    async with Registry(mind, settings) as registry:
        registry.load_entry_points()
        registry.register(LastResponse(), name="last-response")
        registry.register(Screen(), name="screen")
        mind.snapshot = await make_conversation(await registry.scorer())
        taken = registry.dispatch(MindCommand.SCORE)
        print("dispatched:", {name: str(trigger) for name, trigger in taken.items()})
        await registry.wait_idle()


asyncio.run(main())
