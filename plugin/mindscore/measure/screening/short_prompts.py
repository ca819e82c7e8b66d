"""Short prompts: a memory alone with a response's own turn, and no history."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Self

from mindhooks import Context, WirePrompt
from mindscore.measure.screening.spans import MemorySpans, Tokens
from mindscore.measure.screening.words import own_ids, turns

Cells = Mapping[str, Mapping[int, float]]
"""Nats by memory and response, which are numbered in order."""

EXPLAINED = 0.7
"""Share of the squares of what was measured that estimates must explain to be relied on."""

FEWEST = 3
"""Memories below which what most of them do alone is not known."""


@dataclass(frozen=True, slots=True)
class ShortTurn:
    """The ids of a response and of what was said to it, and the span of its body in them."""

    ids: tuple[int, ...]
    body: tuple[int, int]


class ShortPrompts:
    """The prompts of a conversation's memories, each alone with a response that it precedes.

    ``begin`` are the ids that all begin with; ``turns`` are those of the responses, by node id.
    """

    def __init__(
        self, spans: MemorySpans, begin: tuple[int, ...], turns: Mapping[str, ShortTurn]
    ) -> None:
        self._spans = spans
        self._begin = begin
        self._turns = turns

    @classmethod
    def of(
        cls, context: Context, window: range, spans: MemorySpans, responses: Collection[str]
    ) -> Self | None:
        """Return those of ``responses``; ``None``: the template prints turns by what precedes them.

        A response is left out that has images in its turn, or nothing before it.
        """
        if context.prompts is not None or not spans.prompts:
            return None
        [prompt] = spans.prompts
        # What the model wants at the beginning of any prompt stands nowhere else.
        is_memory = any(start == 0 for its in spans.spans.values() for start, _ in its[0])
        is_own = prompt.tokens.count(prompt.tokens[0]) == 1 and not is_memory
        begin = prompt.tokens[:1] if is_own else ()
        found = {}
        for turn in turns([context.conversation[at] for at in window], responses):
            *said, response = turn
            before = tuple(id_ for node in said for id_ in own_ids(node))
            start, end = (len(before) + at for at in response.body)
            if len(begin) + start and not any(node.images for node in turn):
                found[response.id] = ShortTurn((*before, *response.token_ids), (start, end))
        return cls(spans, begin, found)

    def responses(self, key: str) -> list[str]:
        """Return the responses that a memory precedes, by node id."""
        behind = self._spans.behind([key])
        return [it for it in self._turns if it in behind]

    def prompt(self, response: str, key: str | None) -> WirePrompt:
        """Return the prompt of a response with the memory ``key`` alone, or with none."""
        turn = self._turns[response]
        before = (*self._begin, *(() if key is None else self._spans.ids(key)))
        start, end = (len(before) + at for at in turn.body)
        return WirePrompt((*before, *turn.ids)[:end], (), ((start, end),), (response,))

    def cost(self, keys: Iterable[str]) -> Tokens:
        """Return what the prompts of ``keys`` take, and those with none."""
        begin = len(self._begin)
        lengths = {it: begin + turn.body[1] for it, turn in self._turns.items()}
        sent = sum(lengths.values())
        for key in keys:
            its = self.responses(key)
            sent += len(its) * len(self._spans.ids(key)) + sum(lengths[it] for it in its)
        return Tokens(sent, sent)


def beyond_any(alone: Cells) -> dict[str, dict[int, float]]:
    """Return what memories do alone, less what any text does: the median of all, by response."""
    columns: dict[int, list[float]] = {}
    for its in alone.values():
        for response, nats in its.items():
            columns.setdefault(response, []).append(nats)
    usual = {at: median(its) if len(its) >= FEWEST else 0.0 for at, its in columns.items()}
    return {key: {at: nats - usual[at] for at, nats in its.items()} for key, its in alone.items()}


def scale_of(estimates: Cells, exact: Cells) -> float:
    """Return what to multiply estimates by: 0.0 where they explain too little of the exact cells.

    It is the least-squares slope through 0, at most 1.
    """
    pairs = [
        (estimates.get(key, {}).get(at, 0.0), nats)
        for key, its in exact.items()
        for at, nats in its.items()
    ]
    both = sum(guess * nats for guess, nats in pairs)
    guessed, squares = sum(it * it for it, _ in pairs), sum(it * it for _, it in pairs)
    is_worth = both > 0 and both * both >= EXPLAINED * guessed * squares
    return min(1.0, both / guessed) if is_worth else 0.0
