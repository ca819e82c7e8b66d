"""finetune-scoring: find the responses that depend on memories."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from mindhooks import (
    Activity,
    Context,
    FinetuneCandidate,
    FinetuneStats,
    Mind,
    MindCommand,
    MindhooksError,
    Registry,
    ResponseDivergence,
    Role,
    Trigger,
    WirePrompt,
    hookimpl,
)
from mindscore._util.errors import format_error
from mindscore._util.text import count_of
from mindscore.config.settings import FinetuneScoringOptions, parse_table
from mindscore.conversation.conversation import BEGINS
from mindscore.flows.run import FlowRun
from mindscore.measure.memories import (
    Skip,
    assistant_indexes,
    is_response,
    responses_after_change,
    skip_all,
    skip_none,
)
from mindscore.measure.prompts import derived_timestamp_ns, whole_prompt
from mindscore.scorers.selftest import ensure_tested
from mindscore.store import Store, TrainedMarks

SPOKEN = (Role.USER, Role.ASSISTANT)


async def make_candidate(
    context: Context, response: ResponseDivergence, prior_messages: int
) -> FinetuneCandidate:
    """Return the candidate for one response, its alternate not generated yet."""
    index = response.entry_idx
    node = context.conversation[index]
    first, last = node.body
    continuation_ids = tuple(node.token_ids[first:last])
    upto = range(index + 1)
    context_ids = await prompt_before(context, upto, skip_none)
    timestamp_ns = node.timestamp_ns
    if timestamp_ns is None:
        timestamp_ns = derived_timestamp_ns(_place(context, index), continuation_ids)
    return FinetuneCandidate(
        entry_idx=index,
        node_id=response.node_id,
        divergence=response.divergence,
        response_text=node.text,
        prior_context=_prior_context(context, index, prior_messages),
        context_ids=context_ids,
        bare_context_ids=await prompt_before(context, upto, skip_all),
        continuation_ids=continuation_ids,
        alternate_text=None,
        alternate_ids=None,
        timestamp_ns=timestamp_ns,
        noise=response.noise,
    )


def _place(context: Context, index: int) -> tuple[int, ...]:
    """Return what stays of a response's place when a host prints dates or memories differently.

    That is the user message before it without its memories, its number among equal responses to
    equal messages, and the conversation's own id, where its source records one.
    """
    said = context.conversation[index]
    body, asked = said.token_ids[slice(*said.body)], _asked(context, index)
    number = sum(
        it.role == Role.ASSISTANT
        and it.token_ids[slice(*it.body)] == body
        and _asked(context, at) == asked
        for at, it in enumerate(context.conversation[:index])
    )
    own = "" if context.id.startswith(BEGINS) else context.id
    return (*asked, -1, number, *own.encode("utf-8", "surrogatepass"))


def _asked(context: Context, index: int) -> tuple[int, ...]:
    """Return the ids of the last user message before ``index``, without its memories."""
    for node in reversed(context.conversation[:index]):
        if node.role == Role.USER:
            keys = frozenset(node.memory_keys())
            return tuple(node.render(keys)) if keys and node.render else node.token_ids
    return ()


def bare_prompt(context: Context, candidate: FinetuneCandidate) -> WirePrompt:
    """Return the prompt to generate the candidate's alternate from."""
    shown = (*context.system, *context.identity, *context.conversation[: candidate.entry_idx])
    images = tuple(it for node in shown if node.memory_key is None for it in node.images)
    return WirePrompt(candidate.bare_context_ids, images, (), ())


def end_of_turn(context: Context) -> tuple[int, ...]:
    """Return the token that ends every response of the conversation, if they share one."""
    last = {node.token_ids[node.body[1] - 1] for node in context.conversation if is_response(node)}
    return tuple(last) if len(last) == 1 else ()


async def prompt_before(context: Context, upto: range, skip: Skip) -> tuple[int, ...]:
    """Return the prompt that the last response of ``upto`` goes on from.

    Raises:
        MindhooksError: it is in no prompt.
    """
    asked = context.conversation[upto[-1]].id
    for prompt in await context.wire_prompts(upto, skip, (asked,)):
        if asked in prompt.node_ids:
            return prompt.tokens[: prompt.ranges[prompt.node_ids.index(asked)][0]]
    raise MindhooksError(f"response {asked!r} is in no prompt")


def _prior_context(context: Context, index: int, count: int) -> str:
    """Return the last ``count`` user and assistant messages before ``index``, under their roles."""
    said = [
        f"[{node.role}]\n{node.text}"
        for node in context.conversation[:index]
        if node.role in SPOKEN and node.memory_key is None and node.text.strip()
    ]
    return "\n\n".join(said[len(said) - count :] if count < len(said) else said)


class FinetuneRun(FlowRun):
    """A run of finetune-scoring: clear earlier candidates, find new ones, generate alternates."""

    def __init__(self, mind: Mind, registry: Registry) -> None:
        super().__init__(MindCommand.SCORE_FINETUNE, mind, registry)
        self._considered = 0
        self._emitted = 0
        self._largest = 0.0
        self._failed_alternates: list[str] = []

    def begin(self) -> None:
        """Clear earlier candidates."""
        self.mind.state.finetune_candidates.clear()
        self.mind.changed()

    async def perform(self) -> None:
        """Compare the window's responses with all memories and with none; emit the candidates."""
        await self.read()
        settings, context = self.settings.finetune, self.context
        window = finetune_window(len(context.conversation), settings.window_fraction)
        self._considered = len(assistant_indexes(context, window))
        message = f"finetune: scoring {self._considered} responses..."
        activity = self.mind.activity(message)
        with activity:
            activity.update(message, 0, self._considered)
            if responses_after_change(context, window, skip_all):
                await ensure_tested(
                    self.scorer, self.settings.server, await whole_prompt(context), self.usage
                )
            found = await self.compared.drop(window, skip_all)
            self._largest = max((response.divergence for response in found), default=0.0)
            candidates = await self._candidates(found)
            if settings.generate_alternates:
                await self._emit_with_alternates(candidates, activity)
            else:
                for candidate in candidates:
                    await self._emit(candidate)

    async def _candidates(self, found: Sequence[ResponseDivergence]) -> list[FinetuneCandidate]:
        settings, context = self.settings.finetune, self.context
        store = Store(self.settings.store)
        trained = await store.trained()
        candidates = []
        for response in sorted(found, key=lambda it: (-it.divergence, it.entry_idx)):
            has_text = context.conversation[response.entry_idx].text.strip()
            if response.divergence >= settings.threshold and has_text:
                await self.pace.yield_to_loop()
                candidate = await make_candidate(context, response, settings.prior_messages)
                candidates.append(candidate)
        nameless = [it for it in candidates if self._timestamp_ns(it) is None]
        if nameless:
            stamps = await store.earlier_stamps(nameless, self.scorer.model)
            candidates = [
                replace(it, timestamp_ns=stamps[it.entry_idx]) if it.entry_idx in stamps else it
                for it in candidates
            ]
        return [it for it in candidates if not _is_trained(it, trained)]

    def _timestamp_ns(self, candidate: FinetuneCandidate) -> int | None:
        return self.context.conversation[candidate.entry_idx].timestamp_ns

    async def _emit(self, candidate: FinetuneCandidate) -> None:
        self._emitted += 1
        await self.registry.emit_candidate(candidate)

    async def _emit_with_alternates(
        self, candidates: Sequence[FinetuneCandidate], activity: Activity
    ) -> None:
        stop = end_of_turn(self.context)
        for number, candidate in enumerate(candidates, start=1):
            line = f"finetune: generating alternate {number}/{len(candidates)}"
            activity.update(line, number, len(candidates))
            await self.pace.yield_to_loop()
            try:
                spoken = await self.cached.generate(
                    bare_prompt(self.context, candidate),
                    max_tokens=self.settings.finetune.max_alternate_tokens,
                    stop=stop,
                )
            except Exception as failure:
                self._failed_alternates.append(format_error(failure))
                await self._emit(candidate)
            else:
                await self._emit(
                    replace(candidate, alternate_text=spoken.text, alternate_ids=spoken.token_ids)
                )

    def make_stats(self, error: str | None) -> FinetuneStats:
        """Return the run's statistics."""
        if self._failed_alternates and error is None:
            failed = count_of(len(self._failed_alternates), "alternate")
            error = f"{failed} could not be generated: {self._failed_alternates[0]}"
        stats = FinetuneStats(
            responses_considered=self._considered,
            above_threshold=self._emitted,
            threshold=self.settings.finetune.threshold,
            max_divergence=self._largest,
            calls=self.usage.calls,
            prompt_tokens=self.usage.prompt_tokens,
            computed_tokens=self.usage.computed_tokens,
            seconds=self.usage.seconds,
            error=self.failures.beside(error),
        )
        self.mind.state.finetune_last_run = stats
        return stats


def _is_trained(candidate: FinetuneCandidate, trained: TrainedMarks) -> bool:
    ids = candidate.continuation_ids
    # Earlier versions derived a missing timestamp from the whole prompt.
    return trained.covers(candidate.timestamp_ns, ids) or trained.covers(
        derived_timestamp_ns(candidate.context_ids, ids), ids
    )


def finetune_window(length: int, fraction: float) -> range:
    """Return the last ``floor(length * fraction)`` indexes of a conversation of ``length``.

    The fraction is taken as it is written: 0.29 of 100 are 29, not 28.999….
    """
    return range(length - math.floor(length * Fraction(str(fraction))), length)


NAME = "finetune-scoring"


class FinetuneScoring:
    """The plugin that answers ``score-finetune``; a fresh run aborts the one in flight."""

    commands = (MindCommand.SCORE_FINETUNE,)

    def __init__(self, table: Mapping[str, Any]) -> None:
        parse_table(table, FinetuneScoringOptions, f"plugins.settings.{NAME}")

    @hookimpl
    def on_trigger(self, command: str, mind: Mind, registry: Registry) -> Trigger | None:
        if command != MindCommand.SCORE_FINETUNE:
            return None
        handle = registry.task_handle(NAME)
        return handle.trigger(lambda: FinetuneRun(mind, registry).carry_out())
