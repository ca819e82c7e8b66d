"""One message of a transcript, before it is tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from mindhooks import Image, MindhooksError, Node, Part, Role
from mindscore.transcripts.chatml import ChatML

FEW = 6
"""A node that prints so many memories is rendered without any set of them: 63 renderings."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a file says of one message; ``token_ids`` and ``body`` where it gives them."""

    id: str
    role: Role
    text: str
    key: str | None
    parts: tuple[Part, ...]
    timestamp_ns: int | None
    images: tuple[Image, ...]
    token_ids: tuple[int, ...] | None
    body: tuple[int, int] | None

    def memory_keys(self) -> list[str]:
        """The memory keys it bears, its own first."""
        keys = [self.key, *(part.memory_key for part in self.parts)]
        return [key for key in keys if key is not None]

    async def node(self, chatml: ChatML) -> Node:
        """The message as a node of a context."""
        token_ids, body = self.token_ids, self.body
        if token_ids is None:
            token_ids, span = await chatml.render(self.role, self.text)
            body = span if self.role == Role.ASSISTANT else None
        return Node(
            id=self.id,
            role=self.role,
            text=self.text,
            token_ids=token_ids,
            body=body or (0, 0),
            memory_key=self.key,
            timestamp_ns=self.timestamp_ns,
            images=self.images,
            parts=self.parts,
            render=await self._renderings(chatml),
        )

    async def _renderings(self, chatml: ChatML) -> Renderings | None:
        keys = frozenset(part.memory_key for part in self.parts if part.memory_key is not None)
        if not keys:
            return None
        ready = {}
        for skipped in _skippable(keys):
            text = "".join(part.text for part in self.parts if part.memory_key not in skipped)
            ready[skipped], _ = await chatml.render(self.role, text)
        return Renderings(self.id, ready)


def _skippable(keys: frozenset[str]) -> set[frozenset[str]]:
    """The sets of memories that a node is rendered without: all sets of few, else the usual."""
    sizes = range(1, len(keys) + 1) if len(keys) <= FEW else (1, len(keys) - 1, len(keys))
    return {frozenset(chosen) for size in sizes for chosen in combinations(keys, size)}


@dataclass(frozen=True, slots=True)
class Renderings:
    """A node's ids without some of its memories.

    Prepared beforehand, because a node renders synchronously and a tokenizer may be far away.
    """

    node_id: str
    ready: dict[frozenset[str], tuple[int, ...]]

    def __call__(self, skipped: frozenset[str]) -> Sequence[int]:
        if skipped not in self.ready:
            raise MindhooksError(
                f"node {self.node_id!r} prints more than {FEW} memories: it can be rendered "
                f"without one, all, or all but one of them, not without {len(skipped)}"
            )
        return self.ready[skipped]
