"""Messages made into a context's nodes, with one tokenizer and one chat template."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from mindhooks import MindhooksError, Node, Role
from mindscore.conversation.message import Message
from mindscore.conversation.template import Line, Pieces, Template

Tokenize = Callable[[str], Awaitable[list[int]]]


class OnceTokenizer:
    """Remembers what it tokenised: a response keeps its ids as its conversation goes on.

    ``forget_others`` drops what was not asked for since it was last called: the texts that the
    conversation no longer has.
    """

    def __init__(self, tokenize: Tokenize) -> None:
        self._tokenize = tokenize
        self._known: dict[str, list[int]] = {}
        self._used: set[str] = set()

    async def __call__(self, text: str) -> list[int]:
        """The ids of ``text``."""
        self._used.add(text)
        if text not in self._known:
            self._known[text] = await self._tokenize(text)
        return self._known[text]

    def forget_others(self) -> None:
        """Keep only what was asked for since the last time."""
        self._known = {text: ids for text, ids in self._known.items() if text in self._used}
        self._used = set()


FEW = 6
"""A node that prints so many memories is rendered without any set of them: 63 renderings."""

SHORT = 64
"""Characters of a text that is likely to come again: a header, an end of turn."""


class Renderer:
    """Renders the messages of one conversation.

    What the template adds to a message is tokenised apart from what the message says, as a server
    sees it: the header is given to it, the text and the end of turn are the model's own.
    """

    def __init__(self, tokenize: Tokenize, template: Template) -> None:
        self._tokenize = tokenize
        self._template = template
        self._fixed: dict[str, list[int]] = {}

    async def nodes(self, messages: Sequence[Message]) -> list[Node]:
        """A node for each message, in order.

        Raises:
            ScorerError: the tokenizer failed, or the template cannot be taken apart.
        """
        lines = [message.line() for message in messages]
        if all(message.token_ids is not None for message in messages):
            return [self._given(message) for message in messages]
        pieces = await self._template.pieces(lines)
        nodes = []
        for at, message in enumerate(messages):
            if message.token_ids is not None:
                nodes.append(self._given(message))
                continue
            ids, body = await self._ids(pieces[at])
            is_response = message.role == Role.ASSISTANT
            nodes.append(
                _node(message, ids, body if is_response else (0, 0),
                      await self._renderings(lines, at, message))
            )  # fmt: skip
        return nodes

    def _given(self, message: Message) -> Node:
        return _node(message, message.token_ids or (), message.body or (0, 0), None)

    async def _ids(self, pieces: Pieces) -> tuple[tuple[int, ...], tuple[int, int]]:
        """The message's ids, and the span in them of what is said."""
        header = await self._all(pieces.header)
        said = await self._all(pieces.said)
        tail = await self._all(pieces.tail)
        return (*header, *said, *tail), (len(header), len(header) + len(said))

    async def _all(self, texts: Sequence[str]) -> list[int]:
        return [id_ for text in texts for id_ in await self._once(text)]

    async def _once(self, text: str) -> list[int]:
        if len(text) > SHORT:
            return await self._tokenize(text)
        if text not in self._fixed:
            self._fixed[text] = await self._tokenize(text)
        return self._fixed[text]

    async def _renderings(
        self, lines: Sequence[Line], at: int, message: Message
    ) -> Renderings | None:
        keys = frozenset(part.memory_key for part in message.parts if part.memory_key is not None)
        if not keys:
            return None
        ready = {}
        for skipped in _skippable(keys):
            text = message.text_without(skipped)
            if message.without is not None and not text:
                # An agent that has nothing left to say there sends no message.
                ready[_shorter(skipped, keys)] = array("q")
                continue
            variant = await self._template.variant(lines, at, message.line(text))
            ids, _ = await self._ids(variant)
            # There may be thousands, of thousands of ids each.
            ready[_shorter(skipped, keys)] = array("q", ids)
        return Renderings(message.id, keys, ready)


def _node(
    message: Message,
    token_ids: tuple[int, ...],
    body: tuple[int, int],
    render: Renderings | None,
) -> Node:
    return Node(
        id=message.id,
        role=message.role,
        text=message.text,
        token_ids=token_ids,
        body=body,
        memory_key=message.key,
        timestamp_ns=message.timestamp_ns,
        images=message.images,
        parts=message.parts,
        render=render,
    )


def _skippable(keys: frozenset[str]) -> Iterator[frozenset[str]]:
    """The sets of memories that a node is rendered without: all sets of few, else the usual."""
    sizes = range(1, len(keys) + 1) if len(keys) <= FEW else (1, len(keys) - 1, len(keys))
    return (frozenset(chosen) for size in sizes for chosen in combinations(keys, size))


_Chosen = tuple[bool, frozenset[str]]


def _shorter(skipped: frozenset[str], keys: frozenset[str]) -> _Chosen:
    """Which memories are skipped, or which are kept, whatever is the shorter to say."""
    kept = keys - skipped
    return (True, kept) if len(kept) < len(skipped) else (False, skipped)


@dataclass(frozen=True, slots=True)
class Renderings:
    """A node's ids without some of its memories.

    Prepared beforehand, because a node renders synchronously and a tokenizer may be far away.
    """

    node_id: str
    keys: frozenset[str]
    ready: dict[_Chosen, array[int]]

    def __call__(self, skipped: frozenset[str]) -> Sequence[int]:
        ids = self.ready.get(_shorter(skipped, self.keys))
        if ids is None:
            raise MindhooksError(
                f"node {self.node_id!r} prints more than {FEW} memories: it can be rendered "
                f"without one, all, or all but one of them, not without {len(skipped)}"
            )
        return ids
