"""Takes the place of finetune-scoring: a candidate for each of the shortest responses."""

from __future__ import annotations

from typing import Any

from mindhooks import FinetuneCandidate, Mind, MindCommand, Registry, Role, Trigger, hookimpl


class ShortestFirst:
    """Emits the ``count`` shortest responses; needs no scorer."""

    def __init__(self, table: dict[str, Any]) -> None:
        self._count = int(table.get("count", 1))

    @hookimpl
    def on_trigger(self, command: str, mind: Mind, registry: Registry) -> Trigger | None:
        if command != MindCommand.SCORE_FINETUNE:
            return None
        return registry.task_handle("acme-finetune").trigger(lambda: self._run(mind, registry))

    async def _run(self, mind: Mind, registry: Registry) -> None:
        context = await mind.context()
        prompt = context.wire_prompt(range(len(context.conversation)), lambda _: False)
        spans = dict(zip(prompt.node_ids, prompt.ranges, strict=True))
        answers = [
            (index, node)
            for index, node in enumerate(context.conversation)
            if node.role == Role.ASSISTANT
        ]
        answers.sort(key=lambda it: len(it[1].token_ids))
        for index, node in answers[: self._count]:
            start, end = spans[node.id]
            await registry.emit_candidate(
                FinetuneCandidate(
                    entry_idx=index,
                    node_id=node.id,
                    divergence=0.0,
                    response_text=node.text,
                    prior_context="",
                    context_ids=prompt.tokens[:start],
                    bare_context_ids=(),
                    continuation_ids=prompt.tokens[start:end],
                    alternate_text=None,
                    alternate_ids=None,
                    timestamp_ns=index,
                )
            )
