"""Token spans of memories in a prompt, and the tokens that removing memories takes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from mindhooks import Context, Node, WirePrompt
from mindscore._util.aio import Pace
from mindscore.measure.memories import Memory, skip_only
from mindscore.measure.prompts import ask_only, common_prefix, prompts_for
from mindscore.measure.screening.groups import Place
from mindscore.measure.screening.receipt import Unit

Span = tuple[int, int]

LONGEST_HEADER = 8
"""Tokens before the memories of a message that may change with their number, at most."""


class Tokens(NamedTuple):
    """Tokens that are sent, and those of them that run through the model."""

    sent: int
    computed: int

    def plus(self, other: Tokens) -> Tokens:
        """Return the sum of both."""
        return Tokens(self.sent + other.sent, self.computed + other.computed)

    def minus(self, other: Tokens) -> Tokens:
        """Return the difference of both."""
        return Tokens(self.sent - other.sent, self.computed - other.computed)

    def times(self, factor: float) -> Tokens:
        """Return a multiple, rounded down."""
        return Tokens(int(self.sent * factor), int(self.computed * factor))

    def in_unit(self, unit: Unit) -> int:
        """Return the number of the tokens that count in ``unit``."""
        return self.computed if unit == "computed" else self.sent

    def within(self, limit: Tokens) -> bool:
        """Return whether neither exceeds its limit."""
        return self.sent <= limit.sent and self.computed <= limit.computed


NO_TOKENS = Tokens(0, 0)


@dataclass(frozen=True, slots=True)
class MemorySpans:
    """The tokens of each memory in each of the conversation's ``prompts``, by key, in order.

    There is one prompt, unless the model's chat template looks back. ``reuses``: the scorer does
    not compute a prefix again that a prompt shares with an earlier one.
    """

    prompts: Sequence[WirePrompt]
    spans: Mapping[str, Sequence[Sequence[Span]]]
    reuses: bool

    def removing(self, keys: Iterable[str]) -> Tokens:
        """Return the tokens of the prompts without ``keys``, where these have any."""
        its, sent, computed = [self.spans[key] for key in keys], 0, 0
        for index, prompt in enumerate(self.prompts):
            gone = [span for spans in its for span in spans[index]]
            if gone:
                length = len(prompt.tokens) - sum(end - start for start, end in gone)
                sent += length
                computed += length - min(gone)[0] if self.reuses else length
        return Tokens(sent, computed)

    def among(self, responses: Collection[str]) -> MemorySpans:
        """Return the spans in the prompts of ``responses`` alone, cut after the last of them."""
        kept = [(at, ask_only(it, responses)) for at, it in enumerate(self.prompts)]
        kept = [(at, it) for at, it in kept if it.ranges]
        spans = {
            key: [
                [
                    (start, min(end, len(it.tokens)))
                    for start, end in its[at]
                    if start < len(it.tokens)
                ]
                for at, it in kept
            ]
            for key, its in self.spans.items()
        }
        return MemorySpans([it for _, it in kept], spans, self.reuses)

    def leads(self, index: int, most: int) -> list[int]:
        """Return how many tokens stand before each response of a prompt: what was said to it.

        They are ``most`` at most, and stand behind all other responses, and all memories, before
        it. The first of those is left out: a token before it tells it.
        """
        ranges = self.prompts[index].ranges
        its = [span for spans in self.spans.values() for span in spans[index]]
        stops = sorted((0, *(end for _, end in ranges), *(end for _, end in its)))
        before = (start - stops[bisect_right(stops, start) - 1] - 1 for start, _ in ranges)
        return [max(0, min(most, tokens)) for tokens in before]

    def rows(self, index: int, lead: int) -> dict[str, tuple[int, int]]:
        """Return where each response of a prompt starts, and its tokens with ``lead`` before it."""
        prompt = self.prompts[index]
        its = zip(prompt.node_ids, prompt.ranges, self.leads(index, lead), strict=True)
        return {node_id: (start, end - start + before) for node_id, (start, end), before in its}

    def hiding(
        self, sets: Iterable[Sequence[str]], index: int, rows: Iterable[tuple[int, int]]
    ) -> Tokens:
        """Return the tokens that one call takes that hides ``sets`` from responses behind them.

        ``rows`` are as ``rows`` has them; the first memory of each set stands first. Where no
        prefix is kept, the prompt's own tokens are computed besides.
        """
        starts = sorted(self.spans[keys[0]][index][0][0] for keys in sets)
        count = sum(bisect_right(starts, start) * number for start, number in rows)
        count += 0 if self.reuses else len(self.prompts[index].tokens)
        return Tokens(count, count)

    def behind(self, keys: Iterable[str], index: int | None = None) -> set[str]:
        """Return the responses that any of ``keys`` precedes, by node id.

        One that is itself among ``keys`` is gone without them, and none of these.
        """
        its = [self.spans[key] for key in keys]
        found: set[str] = set()
        for at in range(len(self.prompts)) if index is None else [index]:
            gone = [span for spans in its for span in spans[at]]
            starts = [start for start, _ in self.prompts[at].ranges]
            own = {
                number
                for start, end in gone
                for number in range(bisect_left(starts, start), bisect_left(starts, end))
            }
            first = bisect_left(starts, min(gone)[0]) if gone else len(starts)
            ids = self.prompts[at].node_ids
            found |= {ids[number] for number in range(first, len(ids)) if number not in own}
        return found

    def to_hide(self, key: str, index: int) -> list[Span]:
        """Return the spans of ``key`` in the prompt of that ``index``, less the first token.

        Much attention rests on that, whatever it is: without it, everything is otherwise.
        """
        cut = [(max(1, start), end) for start, end in self.spans[key][index]]
        return [(start, end) for start, end in cut if start < end]

    def place(self, key: str, numbers: Mapping[str, int]) -> Place:
        """Return the memory's tokens and the first response behind it, numbered by ``numbers``."""
        behind = [numbers[it] for it in self.behind([key]) if it in numbers]
        return Place(len(self.ids(key)), min(behind, default=len(numbers)))

    def ids(self, key: str) -> list[int]:
        """Return the memory's token ids, of the first prompt that has any."""
        for prompt, spans in zip(self.prompts, self.spans[key], strict=True):
            if spans:
                return [it for start, end in spans for it in prompt.tokens[start:end]]
        return []


NO_SPANS = MemorySpans((), {}, reuses=False)
"""The spans of a conversation that nothing needs."""


async def find_spans(
    context: Context,
    window: range,
    memories: Iterable[Memory],
    prompts: Sequence[WirePrompt],
    *,
    reuses: bool,
) -> MemorySpans:
    """Return the spans of ``memories`` in ``prompts``, those of ``window`` with all memories.

    A memory that is a message has all of its ids; a part of one has the ids by which the message
    differs from the one without it. Spans lie before the end of a prompt's last response.
    """
    keys = [memory.key for memory in memories]
    if context.prompts is None:
        found: dict[str, list[Span]] = {key: [] for key in keys}
        nodes = (*context.system, *context.identity, *(context.conversation[i] for i in window))
        pace, at = Pace(), 0
        end = len(prompts[0].tokens) if prompts else 0
        for node in nodes:
            if node.parts:
                await pace.yield_to_loop()
            for key, start, stop in _spans_in(node, found):
                # Images alone take no tokens, and are removed all the same.
                if (start < stop or node.images) and at + start < end:
                    found[key].append((at + start, min(end, at + stop)))
            at += len(node.token_ids)
        return MemorySpans(
            prompts, {key: [its] * bool(prompts) for key, its in found.items()}, reuses
        )
    asked = {node_id for prompt in prompts for node_id in prompt.node_ids}
    by_key = {}
    for key in keys:
        without = await prompts_for(context, window, skip_only(key), asked)
        by_key[key] = [_differences(prompt, without) for prompt in prompts]
    return MemorySpans(prompts, by_key, reuses)


def _spans_in(node: Node, keys: Collection[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the spans of memories in a node's ids."""
    if node.memory_key is not None and node.memory_key in keys:
        yield node.memory_key, 0, len(node.token_ids)
    for key in dict.fromkeys(part.memory_key for part in node.parts):
        if key is not None and key in keys and node.render is not None and key != node.memory_key:
            without = tuple(node.render(frozenset({key})))
            for start, end in deleted(node.token_ids, without):
                yield key, start, end


def deleted(whole: Sequence[int], without: Sequence[int]) -> list[Span]:
    """Return the spans of ``whole`` that ``without`` lacks or has otherwise.

    It is one span between the common beginning and the common end, or two where a few tokens before
    it change as well, such as a header that states how many memories there are.
    """
    start = common_prefix(whole, without)
    rest, left = whole[start:], without[start:]
    same = common_prefix(rest[::-1], left[::-1])
    middle, other = rest[: len(rest) - same], left[: len(left) - same]
    if not middle:
        return []
    for skipped in range(1, min(LONGEST_HEADER, len(other)) + 1):
        for header in range(1, LONGEST_HEADER + 1):
            kept = len(other) - skipped
            if kept and middle[header : header + kept] == other[skipped:]:
                spans = [(start, start + header), (start + header + kept, start + len(middle))]
                return [span for span in spans if span[0] < span[1]]
    return [(start, start + len(middle))]


def _differences(prompt: WirePrompt, without: Sequence[WirePrompt]) -> list[Span]:
    """Return the spans of ``prompt`` that the prompts without a memory lack.

    It is compared with the one that has its last response, from each response that both have to the
    next: a template may print turns between them otherwise.
    """
    last = prompt.node_ids[-1]
    other = next((it for it in without if last in it.node_ids), None)
    if other is None:
        return []
    ranges = dict(zip(other.node_ids, other.ranges, strict=True))
    both = [
        (span, ranges[node_id])
        for node_id, span in zip(prompt.node_ids, prompt.ranges, strict=True)
        if node_id in ranges
    ]
    bounds = [((0, 0), (0, 0)), *both]
    found = []
    for (one, its), (next_one, next_its) in pairwise(bounds):
        stretch = prompt.tokens[one[1] : next_one[0]]
        spans = deleted(stretch, other.tokens[its[1] : next_its[0]])
        found += [(one[1] + start, one[1] + end) for start, end in spans]
    return sorted(found, key=itemgetter(0))
