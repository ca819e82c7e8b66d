"""Facts of a conversation that are kept beside the scores of its memories."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property

from mindhooks import Context, MemoryScore, Mind, MindhooksError, Node
from mindscore._util.files import STANDARD_INPUT
from mindscore.conversation.conversation import Transcript
from mindscore.measure.interactions import FoundInteractions, Interaction, RedundantGroup
from mindscore.measure.memories import is_response, text_hashes
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.store import ConversationFacts, Evidence, MemoryText, Seen

NS_PER_S = 1e9


def source_of(mind: Mind) -> str:
    """Return the path of the file that the conversation was read from.

    Empty: the host does not say, or it came from standard input.
    """
    transcript = getattr(mind, "transcript", None)
    if not isinstance(transcript, Transcript) or transcript.file == STANDARD_INPUT:
        return ""
    return str(transcript.file.absolute())


class ContextFacts:
    """The facts of a conversation that are kept beside scores, each counted once for all of them.

    ``source`` is the path of its file, empty where it is not known.
    """

    def __init__(self, context: Context, source: str) -> None:
        self.context = context
        self._source = source
        self._nodes = (*context.system, *context.identity, *context.conversation)

    def seen(self, score: MemoryScore, *, keep_texts: bool) -> Seen:
        """Return the facts that belong to ``score``; the memory's text only if it is to be kept."""
        return Seen(
            text=self.text(score.key) if keep_texts else None,
            tokens=self.tokens(score.key),
            responses=self.responses(score),
            conversation=self.conversation(),
        )

    def estimates(self, receipt: ScreenReceipt, model: str, when: float) -> list[Evidence]:
        """Return the estimates of a screen as evidence, whose noise is the estimates' error.

        ``when`` they were made is in seconds since the epoch.
        """
        about = {it.id: (_body_tokens(it), _seconds(it)) for it in self.context.conversation}
        found = []
        for it in receipt.estimates:
            tokens, responded_at = about.get(it.node_id, (None, None))
            found.append(
                Evidence(
                    conversation=self.context.id,
                    model=model,
                    key=it.key,
                    text_hash=self.text_hashes.get(it.key, ""),
                    mode="estimate",
                    node_id=it.node_id,
                    entry_idx=it.entry_idx,
                    divergence=max(0.0, it.nats),
                    signed=it.nats,
                    hold=None,
                    noise=receipt.error,
                    tokens=tokens,
                    responded_at=responded_at,
                    scored_at=when,
                )
            )
        return found

    def interactions(
        self, redundant: Iterable[RedundantGroup], interactions: Iterable[Interaction]
    ) -> FoundInteractions:
        """Return what a run found of memories that do not add up, with the texts they had."""
        return FoundInteractions.of(redundant, interactions, self.text_hashes)

    def holding_still(self, found: FoundInteractions) -> FoundInteractions:
        """Return what an earlier run found of memories whose texts are the same still."""
        places = {node.id: at for at, node in enumerate(self.context.conversation)}
        return found.as_of_now(self.text_hashes, places)

    def memory_texts(
        self, keys: Iterable[str], when: float, *, keep_texts: bool
    ) -> list[MemoryText]:
        """Return the texts of memories, as seen at ``when``; without them, their facts alone."""
        return [
            MemoryText(
                key,
                self.text_hashes[key],
                self.text(key) if keep_texts else None,
                self.tokens(key),
                when,
                when,
            )
            for key in keys
            if key in self.text_hashes
        ]

    @cached_property
    def text_hashes(self) -> dict[str, str]:
        """A hash of each memory's text, by key."""
        return text_hashes(self.context)

    def text(self, key: str) -> str | None:
        """Return the texts of a memory, each distinct one once; ``None``: it has none."""
        return _text(key, self._bearing.get(key, []))

    def tokens(self, key: str) -> int | None:
        """Return how many tokens the prompt has of a memory, or ``None`` if it is not known."""
        return _tokens(key, self._bearing.get(key, []))

    def responses(self, score: MemoryScore) -> dict[str, tuple[int | None, float | None]]:
        """Return tokens and time of the responses that ``score`` has values of, by node id."""
        return {node.id: (_body_tokens(node), _seconds(node)) for node in self._judging(score)}

    def conversation(self) -> ConversationFacts | None:
        """Return the facts of the whole, as seen now; ``None``: nothing is known of it."""
        return replace(self._whole, seen_at=time.time()) if self._nodes else None

    @cached_property
    def _bearing(self) -> dict[str, list[Node]]:
        """The nodes that bear each memory, by key."""
        found: dict[str, list[Node]] = {}
        for node in self._nodes:
            for key in dict.fromkeys(node.memory_keys()):
                found.setdefault(key, []).append(node)
        return found

    @cached_property
    def _whole(self) -> ConversationFacts:
        times = [when for node in self._nodes if (when := _seconds(node)) is not None]
        return ConversationFacts(
            conversation=self.context.id,
            source=self._source,
            title="",
            responses=sum(map(is_response, self.context.conversation)),
            memories=len(self._bearing),
            tokens=sum(len(node.token_ids) for node in self._nodes),
            begun_at=min(times, default=None),
            ended_at=max(times, default=None),
            seen_at=0.0,
        )

    def _judging(self, score: MemoryScore) -> Iterator[Node]:
        """Yield the responses that the score has values of."""
        for it in score.divergences:
            if it.entry_idx < len(self.context.conversation):
                node = self.context.conversation[it.entry_idx]
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
