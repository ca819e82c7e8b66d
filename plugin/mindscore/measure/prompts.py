"""Build prompts, cut after the last response that is scored; fingerprint and budget them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from mindhooks import Context, MemoryScore, Node, WirePrompt
from mindscore.measure.memories import (
    Memory,
    Skip,
    is_response,
    responses,
    responses_after_change,
    skip_none,
    skip_only,
    whole,
)


def prompt_for(context: Context, window: range, skip: Skip, asked: Collection[str]) -> WirePrompt:
    """Return the window's prompt without what ``skip`` names, for the responses ``asked``.

    It ends with the last of them: in a causal model nothing depends on later tokens.
    """
    ends = [index for id_, index in responses(context, window).items() if id_ in asked]
    last = max(ends, default=window.start - 1)
    prompt = context.wire_prompt(range(window.start, last + 1), skip)
    narrowed = ask_only(prompt, asked)
    # A response without images is behind all images of the prompt: it may be cut there.
    return narrowed if not ends or context.conversation[last].images else _cut(narrowed)


async def prompts_for(
    context: Context, window: range, skip: Skip, asked: Collection[str]
) -> list[WirePrompt]:
    """Return the window's prompts without what ``skip`` names, for the responses ``asked``.

    It is one prompt, unless the model's chat template looks back.
    """
    if context.prompts is None:
        return [prompt_for(context, window, skip, asked)]
    return [ask_only(it, asked) for it in await context.wire_prompts(window, skip, asked)]


async def whole_prompt(context: Context) -> tuple[int, ...]:
    """Return the token ids of the conversation up to its last response, with all memories."""
    if context.prompts is None:
        return context.wire_prompt(whole(context), skip_none).tokens
    last = list(responses(context, whole(context)))[-1:]
    found = await context.wire_prompts(whole(context), skip_none, last)
    return found[0].tokens if found else ()


def ask_only(prompt: WirePrompt, node_ids: Collection[str]) -> WirePrompt:
    """Return the prompt with the ranges of ``node_ids`` alone, cut after the last of them.

    A prompt with images is not cut: their positions in it are not known.
    """
    kept = [
        (span, id_)
        for span, id_ in zip(prompt.ranges, prompt.node_ids, strict=True)
        if id_ in node_ids
    ]
    narrowed = replace(
        prompt, ranges=tuple(span for span, _ in kept), node_ids=tuple(id_ for _, id_ in kept)
    )
    return narrowed if prompt.images else _cut(narrowed)


def _cut(prompt: WirePrompt) -> WirePrompt:
    last = max((end for _, end in prompt.ranges), default=0)
    return replace(prompt, tokens=prompt.tokens[:last])


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of ids with which both prompts begin."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))


def response_hash(continuation_ids: Iterable[int]) -> str:
    """Return a hash of a response's token ids: with its timestamp it marks it as trained."""
    return _digest(continuation_ids).hex()


def derived_timestamp_ns(context_ids: Iterable[int], continuation_ids: Iterable[int]) -> int:
    """Return a stand-in for a missing timestamp, 0 to 2**63 - 1, from prompt and body.

    It is the same for the same response behind the same prompt, and differs otherwise.
    """
    digest = _digest(context_ids) + _digest(continuation_ids)
    return int.from_bytes(hashlib.sha256(digest).digest()[:8]) >> 1


class RowFingerprints:
    """Hashes of what determines a memory's row of the matrix.

    It is determined by the messages' ids, bodies, images, keys and order, by the messages without
    the memory, and by ``weights``: the adapter, or whatever tells models of one name apart.
    """

    def __init__(self, context: Context, weights: str = "") -> None:
        self._sections = (context.system, context.identity, context.conversation)
        digest = hashlib.sha256(weights.encode("utf-8", "surrogatepass"))
        if context.prompts is not None:
            # A host's own renderer need not have one.
            digest.update(b"turns" + getattr(context.prompts, "fingerprint", b""))
        for nodes in self._sections:
            digest.update(len(nodes).to_bytes(8))
            for node in nodes:
                images = [(it.mime, hashlib.sha256(it.data).digest()) for it in node.images]
                facts = (node.id, node.role, node.memory_key, node.body, images)
                digest.update(msgspec.msgpack.encode(facts))
                digest.update(_digest(node.token_ids))
        self._conversation = digest.digest()

    def of(self, key: str) -> str:
        """Return the hash for the memory ``key``."""
        digest = hashlib.sha256(self._conversation + key.encode("utf-8", "surrogatepass"))
        for nodes in self._sections:
            for node in nodes:
                if node.render is not None and _prints(node, key):
                    digest.update(_digest(node.render(frozenset({key}))))
        return digest.hexdigest()


class Beginnings:
    """The rows of the matrix that were measured when a conversation was shorter.

    A response depends on nothing behind it, so that they are exact still if what was sent then is
    how the conversation begins now. ``weights``: as of ``RowFingerprints``.
    """

    def __init__(self, context: Context, weights: str) -> None:
        self._context = context
        self._weights = weights
        self._fingerprints: dict[int, RowFingerprints] = {}

    def have(self, row: MemoryScore) -> bool:
        """Return whether ``row`` is of a beginning of the conversation."""
        context = self._context
        if context.prompts is not None or not row.divergences or row.fingerprint is None:
            return False
        last = max(it.entry_idx for it in row.divergences)
        # It ended behind the last response that the row has, and before the next one.
        for count in range(last + 1, len(context.conversation)):
            if count > last + 1 and is_response(context.conversation[count - 1]):
                return False
            if self._of(count).of(row.key) == row.fingerprint:
                return True
        return False

    def _of(self, count: int) -> RowFingerprints:
        if count not in self._fingerprints:
            shorter = replace(self._context, conversation=self._context.conversation[:count])
            self._fingerprints[count] = RowFingerprints(shorter, self._weights)
        return self._fingerprints[count]


def _prints(node: Node, key: str) -> bool:
    return any(part.memory_key == key for part in node.parts)


def _digest(ids: Iterable[int]) -> bytes:
    return hashlib.sha256(array("q", ids).tobytes()).digest()


class Budget:
    """Takes memories while the prompts that they need hold no more than ``limit`` tokens.

    The baseline of a window counts once, with its ``repeats``. It is an upper bound: prompts that
    turn out to be cached cost nothing. With ``limit`` 0 there is none.
    """

    def __init__(
        self, context: Context, windows: Mapping[Memory, range], limit: int, repeats: int
    ) -> None:
        self._context = context
        self._windows = windows
        self._limit = limit
        self._baselines_per_window = 1 + repeats
        self.spent = 0
        """The most tokens that the prompts of the memories taken so far hold; 0 without a limit."""
        self._judged: dict[range, set[str]] = {}

    async def takes(self, memory: Memory) -> bool:
        """Return whether ``memory`` still fits, and count it if so."""
        context, window, skip = self._context, self._windows[memory], skip_only(memory.key)
        before = self._judged.get(window, set())
        asked = responses_after_change(context, window, skip)
        if self._limit:
            longer = await self._length(window, before | asked)
            longer -= await self._length(window, before)
            without = _tokens(await prompts_for(context, window, skip, asked))
            cost = self._baselines_per_window * longer + without
            if self.spent + cost > self._limit:
                return False
            self.spent += cost
        self._judged[window] = before | asked
        return True

    def judged(self, window: range) -> set[str]:
        """Return the responses of ``window`` that judge any memory taken."""
        return self._judged[window]

    async def _length(self, window: range, asked: set[str]) -> int:
        return _tokens(await prompts_for(self._context, window, skip_none, asked))


def _tokens(prompts: Iterable[WirePrompt]) -> int:
    return sum(len(it.tokens) for it in prompts)
