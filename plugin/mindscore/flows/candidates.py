"""What a fine-tuning candidate is made of."""

from __future__ import annotations

from mindhooks import Context, FinetuneCandidate, ResponseDivergence, Role, WirePrompt
from mindscore.fingerprint import derived_timestamp_ns
from mindscore.memories import everything, is_response, nothing

SPOKEN = (Role.USER, Role.ASSISTANT)


def make_candidate(
    context: Context, response: ResponseDivergence, prior_messages: int
) -> FinetuneCandidate:
    """The candidate for one response, its alternate not generated yet."""
    index = response.entry_idx
    node = context.conversation[index]
    first, last = node.body
    continuation_ids = tuple(node.token_ids[first:last])
    upto = range(index + 1)
    context_ids = _before_last(context.wire_prompt(upto, nothing))
    timestamp_ns = node.timestamp_ns
    if timestamp_ns is None:
        timestamp_ns = derived_timestamp_ns(context_ids, continuation_ids)
    return FinetuneCandidate(
        entry_idx=index,
        node_id=response.node_id,
        divergence=response.divergence,
        response_text=node.text,
        prior_context=_prior_context(context, index, prior_messages),
        context_ids=context_ids,
        bare_context_ids=_before_last(context.wire_prompt(upto, everything)),
        continuation_ids=continuation_ids,
        alternate_text=None,
        alternate_ids=None,
        timestamp_ns=timestamp_ns,
        noise=response.noise,
    )


def bare_prompt(context: Context, candidate: FinetuneCandidate) -> WirePrompt:
    """The prompt to generate the candidate's alternate from."""
    images = context.wire_prompt(range(candidate.entry_idx), everything).images
    return WirePrompt(candidate.bare_context_ids, images, (), ())


def end_of_turn(context: Context) -> tuple[int, ...]:
    """The token that ends every response of the conversation, if there is one such token."""
    last = {node.token_ids[node.body[1] - 1] for node in context.conversation if is_response(node)}
    return tuple(last) if len(last) == 1 else ()


def _before_last(prompt: WirePrompt) -> tuple[int, ...]:
    return prompt.tokens[: prompt.ranges[-1][0]]


def _prior_context(context: Context, index: int, count: int) -> str:
    """The last ``count`` user and assistant messages before ``index``, each under its role."""
    said = [
        f"[{node.role}]\n{node.text}"
        for node in context.conversation[:index]
        if node.role in SPOKEN and node.memory_key is None and node.text.strip()
    ]
    return "\n\n".join(said[len(said) - count :] if count < len(said) else said)
