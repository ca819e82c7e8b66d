"""Facts of a conversation that are kept beside a score of one of its memories."""

from __future__ import annotations

import time
from collections.abc import Iterator

from mindhooks import Context, MemoryScore, Mind, MindhooksError, Node
from mindscore._util.files import STANDARD_INPUT
from mindscore.conversation.conversation import Transcript
from mindscore.measure.memories import find_memories, is_response
from mindscore.store import ConversationFacts, Seen

NS_PER_S = 1e9


def source_of(mind: Mind) -> str:
    """Return the path of the file that the conversation was read from.

    Empty: the host does not say, or it came from standard input.
    """
    transcript = getattr(mind, "transcript", None)
    if not isinstance(transcript, Transcript) or transcript.file == STANDARD_INPUT:
        return ""
    return str(transcript.file.absolute())


def seen_of(score: MemoryScore, context: Context, source: str, *, keep_texts: bool) -> Seen:
    """Return the facts of ``context`` that belong to ``score``.

    The memory's text is among them only if texts are to be kept.
    """
    nodes = (*context.system, *context.identity, *context.conversation)
    bearing = [node for node in nodes if score.key in node.memory_keys()]
    return Seen(
        text=_text(score.key, bearing) if keep_texts else None,
        tokens=_tokens(score.key, bearing),
        responses={
            node.id: (_body_tokens(node), _seconds(node)) for node in _judging(score, context)
        },
        conversation=_facts(context, nodes, source) if nodes else None,
    )


def _judging(score: MemoryScore, context: Context) -> Iterator[Node]:
    """Yield the responses that the score has values of."""
    for it in score.divergences:
        if it.entry_idx < len(context.conversation):
            node = context.conversation[it.entry_idx]
            if node.id == it.node_id:
                yield node


def _text(key: str, nodes: list[Node]) -> str | None:
    """Return the memory's texts, each distinct one once, as ``text_hashes`` tells them apart."""
    texts: dict[str, str] = {}
    for node in nodes:
        said = [part.text for part in node.parts if part.memory_key == key]
        if node.memory_key == key:
            said.insert(0, node.text)
        for text in said:
            texts.setdefault(" ".join(text.split()), text)
    return "\n\n".join(texts.values()) if texts else None


def _tokens(key: str, nodes: list[Node]) -> int | None:
    """Return how many tokens the prompt has of the memory, or ``None`` if it is not known."""
    if not nodes:
        return None
    count = 0
    for node in nodes:
        count += len(node.token_ids)
        if node.memory_key != key:
            if node.render is None:
                return None
            try:
                count -= len(node.render(frozenset({key})))
            # The flow says what cannot be rendered: here it is only not counted.
            except MindhooksError:
                return None
    return count


def _body_tokens(node: Node) -> int:
    return node.body[1] - node.body[0]


def _seconds(node: Node) -> float | None:
    return None if node.timestamp_ns is None else node.timestamp_ns / NS_PER_S


def _facts(context: Context, nodes: tuple[Node, ...], source: str) -> ConversationFacts:
    times = [when for node in nodes if (when := _seconds(node)) is not None]
    return ConversationFacts(
        conversation=context.id,
        source=source,
        title="",
        responses=sum(map(is_response, context.conversation)),
        memories=len(find_memories(context)),
        tokens=sum(len(node.token_ids) for node in nodes),
        begun_at=min(times, default=None),
        ended_at=max(times, default=None),
        seen_at=time.time(),
    )
