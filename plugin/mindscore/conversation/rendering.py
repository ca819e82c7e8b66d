"""Render messages as the nodes of a context, with one tokenizer and one chat template."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from mindhooks import MindhooksError, Node, Role
from mindscore.conversation.message import Message
from mindscore.conversation.template import ChatML, LooksBackError, Pieces, Template

Tokenize = Callable[[str], Awaitable[list[int]]]

KeySets = Collection[frozenset[str]]
"""Sets of memories, each left out of a prompt together."""


class CachedTokenizer:
    """A tokenizer that remembers: a response keeps its ids as its conversation goes on."""

    def __init__(self, tokenize: Tokenize) -> None:
        self._tokenize = tokenize
        self._known: dict[str, list[int]] = {}
        self._used: set[str] = set()

    async def __call__(self, text: str) -> list[int]:
        """Return the ids of ``text``."""
        self._used.add(text)
        if text not in self._known:
            self._known[text] = await self._tokenize(text)
        return self._known[text]

    def evict_unused(self) -> None:
        """Keep only the texts asked for since the last call: those that the conversation has."""
        self._known = {text: ids for text, ids in self._known.items() if text in self._used}
        self._used = set()


ALL_SUBSETS_KEYS = 6
"""Memories of a node that is rendered without every subset of them: 63 renderings."""

END_CHARACTERS, START_CHARACTERS = 4, 16
"""Lengths of the end and the beginning of messages on which the tokens between them depend."""

OPENING = "opening"
"""Id of the node of what the chat template prints in front of all messages."""

CACHED_CHARACTERS = 64
"""Length of a text that is likely to come again: a header, an end of turn."""


class Renderer:
    """Renders the messages of one conversation.

    Header, content and end of turn are tokenised each by itself, because a server gets the header's
    ids as part of the prompt, while the model generates those of the response. ``without``: the
    sets of memories to render without, instead of those that flows leave out.
    """

    def __init__(
        self, tokenize: Tokenize, template: Template, without: KeySets | None = None
    ) -> None:
        self._tokenize = tokenize
        self._template = template
        self._without = without
        self._short: dict[str, list[int]] = {}
        self._variants: dict[int, list[str]] = {}

    async def nodes(self, messages: Sequence[Message], before: int = 0) -> list[Node]:
        """Return a node for each message, in order, behind one of what the template opens with.

        The first ``before`` messages stand in front of every part of the conversation.

        Raises:
            ScorerError: the tokenizer failed, or the template cannot be taken apart.
        """
        if all(message.token_ids is not None for message in messages):
            return [_recorded(message) for message in messages]
        pieces = await self._template.pieces(messages)
        nodes = []
        if opening := self._template.opening:
            pieces = [pieces[0].behind(opening), *pieces[1:]]
            ids = tuple(await self._tokenize(opening))
            nodes.append(Node(id=OPENING, role=Role.SYSTEM, text="", token_ids=ids, body=(0, 0)))
        await self._compare(messages, pieces)
        for at, message in enumerate(messages):
            if message.token_ids is not None:
                nodes.append(_recorded(message))
                continue
            ids, content = await self._ids(pieces[at])
            body = content if message.role == Role.ASSISTANT else (0, 0)
            render = None
            if message.parts:
                render = await self._renderings(messages[:at], message)
            nodes.append(node_of(message, ids, body, render))
        await self._compare_edges(messages, pieces, before)
        return nodes

    async def _compare(self, messages: Sequence[Message], pieces: Sequence[Pieces]) -> None:
        """Compare the pieces' ids with those that a server makes of the whole text.

        Raises:
            LooksBackError: they differ, as where a response begins with white space.
        """
        if not self._is_comparable(messages):
            return
        opening = self._template.opening
        apart = list(await self._tokenize(opening)) if opening else []
        apart += [id_ for it in pieces for id_ in (await self._ids(it))[0]]
        if apart != await self._tokenize(opening + "".join(it.text() for it in pieces)):
            raise LooksBackError("the whole prompt has other tokens than its messages")

    def _is_comparable(self, messages: Sequence[Message]) -> bool:
        if isinstance(self._template, ChatML):
            return False
        return all(it.token_ids is None for it in messages)

    async def _compare_edges(
        self, messages: Sequence[Message], pieces: Sequence[Pieces], before: int
    ) -> None:
        """Compare the tokens where messages meet that stand apart in the whole conversation.

        Raises:
            LooksBackError: they are others than those of both messages.
        """
        if not self._is_comparable(messages):
            return
        ends = {self._template.opening[-END_CHARACTERS:]}
        behind_beginning = ends
        edges: dict[tuple[str, str], None] = {}
        for at, message in enumerate(messages):
            if at <= before:
                behind_beginning = ends
            printed = [pieces[at].text(), *self._variants.get(at, ())]
            starts = [text[:START_CHARACTERS] for text in printed if text]
            edges |= {(end, it): None for end in ends | behind_beginning for it in starts if end}
            is_always = message.memory_key is None and all(printed)
            ends = {it[-END_CHARACTERS:] for it in printed if it} | (set() if is_always else ends)
        for end, start in edges:
            if await self._once(end + start) != await self._all((end, start)):
                raise LooksBackError("a prompt has other tokens where a memory is left out")

    async def _ids(self, pieces: Pieces) -> tuple[tuple[int, ...], tuple[int, int]]:
        """Return the message's ids, and the span of its content in them."""
        header = await self._all(pieces.header)
        content = await self._all(pieces.content)
        tail = await self._all(pieces.tail)
        return (*header, *content, *tail), (len(header), len(header) + len(content))

    async def _all(self, texts: Sequence[str]) -> list[int]:
        return [id_ for text in texts for id_ in await self._once(text)]

    async def _once(self, text: str) -> list[int]:
        if len(text) > CACHED_CHARACTERS:
            return await self._tokenize(text)
        if text not in self._short:
            self._short[text] = await self._tokenize(text)
        return self._short[text]

    async def _renderings(self, earlier: Sequence[Message], message: Message) -> Renderings | None:
        """Render ``message`` without each set of its memories that is to be left out."""
        keys = frozenset(part.memory_key for part in message.parts if part.memory_key is not None)
        if not keys:
            return None
        ready = {}
        printed = self._variants.setdefault(len(earlier), [])
        for skipped in skippable(keys, self._without):
            text = message.text_without(skipped)
            if message.blocks and not text and not message.shown:
                # An agent that has nothing left to say there sends no message.
                ready[shorter(skipped, keys)] = array("q")
                printed.append("")
                continue
            variant = replace(message, text=text)
            pieces = await self._template.piece(earlier, variant)
            pieces = pieces if earlier else pieces.behind(self._template.opening)
            printed.append(pieces.text())
            ids, _ = await self._ids(pieces)
            # There may be thousands, of thousands of ids each.
            ready[shorter(skipped, keys)] = array("q", ids)
        return Renderings(message.id, keys, ready)


def _recorded(message: Message) -> Node:
    return node_of(message, message.token_ids or (), message.body or (0, 0), None)


def node_of(
    message: Message,
    token_ids: tuple[int, ...],
    body: tuple[int, int],
    render: Renderings | None,
) -> Node:
    """Return the node of ``message``; ``render`` leaves out memories that stand in it."""
    return Node(
        id=message.id,
        role=message.role,
        text=message.text,
        token_ids=token_ids,
        body=body,
        memory_key=message.memory_key,
        timestamp_ns=message.timestamp_ns,
        images=message.images,
        parts=message.parts,
        render=render,
    )


def skippable(keys: frozenset[str], without: KeySets | None = None) -> Iterator[frozenset[str]]:
    """Yield the sets of ``keys`` to render a node without: what it has of those in ``without``.

    If that is ``None``, all sets of few keys, else the usual ones.
    """
    if without is not None:
        return iter({keys & chosen for chosen in without} - {frozenset()})
    count = len(keys)
    sizes = range(1, count + 1) if count <= ALL_SUBSETS_KEYS else (1, count - 1, count)
    return (frozenset(chosen) for size in sizes for chosen in combinations(keys, size))


_Chosen = tuple[bool, frozenset[str]]
"""``(False, skipped keys)`` or ``(True, kept keys)``."""


def shorter(skipped: frozenset[str], keys: frozenset[str]) -> _Chosen:
    """Return the skipped keys or the kept ones, the smaller set of the two."""
    kept = keys - skipped
    return (True, kept) if len(kept) < len(skipped) else (False, skipped)


@dataclass(frozen=True, slots=True)
class Renderings:
    """The ids of a node without some of its memories.

    They are prepared, because a node renders synchronously and a tokenizer may be far away.
    """

    node_id: str
    keys: frozenset[str]
    ready: dict[_Chosen, array[int]]

    def __call__(self, skipped: frozenset[str]) -> Sequence[int]:
        ids = self.ready.get(shorter(skipped, self.keys))
        if ids is None:
            raise MindhooksError(
                f"node {self.node_id!r} prints more than {ALL_SUBSETS_KEYS} memories: it can be "
                f"rendered without one, all, or all but one of them, not without {len(skipped)}"
            )
        return ids
