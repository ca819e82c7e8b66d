"""Find the memories of a conversation and the responses that judge them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Protocol

from mindhooks import Context, Node, Part, Role

Skip = Callable[[str], bool]


def skip_none(key: str) -> bool:
    """Skip no memory: the prompt with all of them."""
    del key
    return False


def skip_all(key: str) -> bool:
    """Skip every memory: the bare prompt."""
    del key
    return True


def skip_only(key: str) -> Skip:
    """Skip the memory ``key``, every node and part that bears it."""
    return lambda other: other == key


def skip_all_except(key: str) -> Skip:
    """Skip every memory but ``key``."""
    return lambda other: other != key


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory key at its first position: its conversation index, or 0 in system and identity."""

    key: str
    position: int


def find_memories(context: Context) -> list[Memory]:
    """Return each distinct key of nodes and parts at its first position, in prompt order."""
    positions: dict[str, int] = {}
    for node in _before(context):
        for key in node.memory_keys():
            positions.setdefault(key, 0)
    for index, node in enumerate(context.conversation):
        for key in node.memory_keys():
            positions.setdefault(key, index)
    return [Memory(key, position) for key, position in positions.items()]


class Said(Protocol):
    """A message, tokenised or not."""

    @property
    def id(self) -> str: ...
    @property
    def role(self) -> Role: ...
    @property
    def memory_key(self) -> str | None: ...
    @property
    def text(self) -> str: ...
    @property
    def parts(self) -> tuple[Part, ...]: ...


class Sections(Protocol):
    """A conversation, tokenised or not: a ``Context`` or a transcript."""

    @property
    def system(self) -> Sequence[Said]: ...
    @property
    def identity(self) -> Sequence[Said]: ...
    @property
    def conversation(self) -> Sequence[Said]: ...


def told_memories(context: Sections) -> Iterator[tuple[str, str]]:
    """Yield the key and the text of each place where a memory stands, in prompt order."""
    for node in (*context.system, *context.identity, *context.conversation):
        said = [(part.memory_key, part.text) for part in node.parts]
        for key, text in ((node.memory_key, node.text), *said):
            if key is not None:
                yield key, text


def memory_texts(context: Sections) -> dict[str, str]:
    """Return the text of each memory, by key; its different texts, if it has several."""
    texts: dict[str, dict[str, None]] = {}
    for key, text in told_memories(context):
        texts.setdefault(key, {})[text.strip()] = None
    return {key: "\n".join(each) for key, each in texts.items()}


def text_hashes(context: Sections) -> dict[str, str]:
    """Return a hash of each memory's text, by key.

    Where a key stands with several texts, as before and after a rewriting, it is of all of them.
    White space does not count.
    """
    texts: dict[str, list[str]] = {}
    for key, text in told_memories(context):
        texts.setdefault(key, []).append(text)
    return {key: text_hash(*found) for key, found in texts.items()}


def text_hash(*texts: str) -> str:
    """Return a hash of the texts of one memory, each distinct one once, without white space."""
    distinct = dict.fromkeys(" ".join(text.split()) for text in texts)
    return hashlib.sha256("\0".join(distinct).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _before(context: Context) -> tuple[Node, ...]:
    return (*context.system, *context.identity)


def is_response(node: Node) -> bool:
    """Return whether the model produced tokens in this node, so that it can be scored."""
    return node.role == Role.ASSISTANT and node.body[0] != node.body[1]


def assistant_indexes(context: Context, window: range) -> list[int]:
    """Return the indexes of the assistant nodes in ``window``, with or without a body."""
    return [i for i in window if context.conversation[i].role == Role.ASSISTANT]


def responses(context: Context, window: range, skip: Skip = skip_none) -> dict[str, int]:
    """Return the responses in ``window`` not removed: node id to conversation index, in order."""
    found = {}
    for index in window:
        node = context.conversation[index]
        if is_response(node) and not _is_skipped(node, skip):
            found[node.id] = index
    return found


def responses_after_change(
    context: Context, window: range, skip: Skip, than: Skip = skip_none
) -> set[str]:
    """Return the node ids of the responses after the first difference between two prompts.

    One is ``window`` without what ``skip`` names, the other without what ``than`` names. Only
    responses that both have count; before the difference, the divergence is exactly 0.
    """
    differ = any(_differs(node, skip, than) for node in _before(context))
    found = set()
    for index in window:
        node = context.conversation[index]
        kept = not _is_skipped(node, skip) and not _is_skipped(node, than)
        if differ and kept and is_response(node):
            found.add(node.id)
        differ = differ or _differs(node, skip, than)
    return found


def _is_skipped(node: Node, skip: Skip) -> bool:
    return node.memory_key is not None and skip(node.memory_key)


def _differs(node: Node, one: Skip, other: Skip) -> bool:
    """Return whether two prompts have different tokens or images of this node."""
    if _is_skipped(node, one) != _is_skipped(node, other):
        return bool(node.token_ids or node.images)
    if _is_skipped(node, one):
        return False
    keys = {part.memory_key for part in node.parts if part.memory_key is not None}
    without, without_other = (frozenset(filter(skip, keys)) for skip in (one, other))
    return without != without_other and _ids(node, without) != _ids(node, without_other)


def _ids(node: Node, skipped: frozenset[str]) -> tuple[int, ...] | None:
    """Return the node's ids without some of its parts; ``None``: it cannot be rendered so."""
    if not skipped:
        return node.token_ids
    return None if node.render is None else tuple(node.render(skipped))


def whole(context: Context) -> range:
    """Return the window that is the whole conversation."""
    return range(len(context.conversation))


def response_window(context: Context, position: int, count: int) -> range:
    """Return the window from ``position`` through the ``count``-th assistant node, or the end."""
    rest = range(position, len(context.conversation))
    seen = assistant_indexes(context, rest)
    return range(position, seen[count - 1] + 1) if len(seen) >= count else rest


def past_cutoff(context: Context, memories: Iterable[Memory], cutoff: float) -> set[str]:
    """Return the keys after which too little of the conversation is left to judge them.

    At their position the cumulative tokens of the conversation, that node's included, exceed the
    fraction ``cutoff`` of all.
    """
    cumulative = list(accumulate(len(node.token_ids) for node in context.conversation))
    if not cumulative:
        return set()
    # As it is written: 0.7 of 10 are 7, not 6.999….
    limit = Fraction(str(cutoff)) * cumulative[-1]
    return {memory.key for memory in memories if cumulative[memory.position] > limit}
