"""The prompts of the self-test, made of the beginning of a conversation's own prompt.

``told`` is the beginning as it is, then a list of tokens that are new in it, then the list again
with a new token after every fourth::

    told       prefix            a b c d e f g h …    a b c d X e f g h Y …
    untold     prefix            tokens of prefix     a b c d X e f g h Y …
    shuffled   prefix, shuffled  a b c d e f g h …    X a b c d Y e f g h …

All three are of one length and are asked for the same ranges, so that a server which confuses them
gives an answer that fits; any two differ much in the last third. Every prompt keeps the first
token: with some models it must be their beginning-of-sequence token, and there is a defect that
depends on it. Only ids of the beginning occur: they are valid for the server, and it is sent
nothing new.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mindhooks import WirePrompt

Span = tuple[int, int]
"""A half-open range of positions in a prompt."""

MAX_TOKENS = 192
"""Tokens of the conversation that are used, and of each prompt."""

_RUN = 4
_GROUP = _RUN + 1
_MIN_GROUPS, _LARGE, _MAX_GROUPS = 3, 5, 8
_SEED = 20250214


@dataclass(frozen=True, slots=True)
class Probe:
    """The tokens of the prompts, and the layout that they share.

    ``prefix`` tokens come first, then ``4 * groups`` of the list, then ``groups`` times four of the
    list and one that is new.
    """

    told: tuple[int, ...]
    untold: tuple[int, ...]
    shuffled: tuple[int, ...]
    prefix: int
    groups: int

    @property
    def is_large(self) -> bool:
        """Return whether there are enough groups for their mean to be far from chance."""
        return self.groups >= _LARGE

    @property
    def opening(self) -> tuple[Span, ...]:
        """Return the prefix: two halves, and its last four tokens, right before prompts differ."""
        last = self.prefix - _RUN
        middle = 1 + last // 2
        return (1, middle), (middle, last), (last, self.prefix)

    @property
    def first_time(self) -> tuple[Span, ...]:
        """Return the runs of the list's first time, which ``untold`` does not have."""
        starts = range(self.prefix, self._second_start, _RUN)
        return tuple((start, start + _RUN) for start in starts)

    @property
    def expected(self) -> tuple[Span, ...]:
        """Return the last token of each run of ``told``'s second time, known from the first."""
        return tuple(_single(start + _RUN - 1) for start in self._starts)

    @property
    def surprises(self) -> tuple[Span, ...]:
        """Return the new tokens of ``told``, each right after one that was expected."""
        return tuple(_single(start + _RUN) for start in self._starts)

    @property
    def shuffled_expected(self) -> tuple[Span, ...]:
        """Return the last token of each run of ``shuffled``'s second time."""
        return self.surprises

    @property
    def shuffled_surprises(self) -> tuple[Span, ...]:
        """Return the new tokens of ``shuffled``."""
        return tuple(map(_single, self._starts))

    @property
    def second_time(self) -> tuple[Span, ...]:
        """Return each token of the list's second time, surprises included."""
        return tuple(_single(index) for index in range(self._second_start, len(self.told)))

    @property
    def all_spans(self) -> tuple[Span, ...]:
        """Return every token but the first, in order."""
        return *self.opening, *self.first_time, *self.second_time

    @property
    def late_spans(self) -> tuple[Span, ...]:
        """Return the list's second time alone: its first half as one range, the rest as before.

        Servers that can begin in the middle of a prompt compute this in another way.
        """
        middle = self._starts[self.groups // 2]
        fine = [span for span in self.second_time if span[0] >= middle]
        return (self._starts[0], middle), *fine

    @property
    def branched(self) -> tuple[int, ...]:
        """Return ``told`` up to the list's second time, and then ``told`` backwards.

        Of ``told`` it shares more than a block of 128 tokens, which is what vLLM caches together on
        CPUs; all of it has another block.
        """
        return *self.told[: self._second_start], *reversed(self.told)

    @property
    def branch_spans(self) -> tuple[Span, ...]:
        """Return each token of ``branched`` from the second on that ``told`` does not share."""
        return tuple(map(_single, range(self._second_start + 1, len(self.branched))))

    @property
    def _starts(self) -> range:
        return range(self._second_start, len(self.told), _GROUP)

    @property
    def _second_start(self) -> int:
        return self.prefix + _RUN * self.groups


def _single(index: int) -> Span:
    return index, index + 1


def make_probe(tokens: Sequence[int]) -> Probe | None:
    """Return the prompts made of ``tokens``; ``None`` if these are too few or too much alike."""
    beginning = tuple(tokens[:MAX_TOKENS])
    distinct = list(dict.fromkeys(beginning))[1:]
    # The distinct tokens that are left make the prefix.
    groups = min(_MAX_GROUPS, len(distinct) * 2 // 3 // _GROUP)
    if groups < _MIN_GROUPS:
        return None
    new = distinct[-groups * _GROUP :]
    prefix = beginning[: min(beginning.index(new[0]), MAX_TOKENS - groups * (_RUN + _GROUP))]
    # Always the same: a server that passed once is asked the same again.
    chance = random.Random(_SEED)  # noqa: S311 - no secret
    chance.shuffle(new)
    listed, surprises = new[groups:], new[:groups]
    runs = [listed[start : start + _RUN] for start in range(0, len(listed), _RUN)]
    pairs = list(zip(runs, surprises, strict=True))
    broken = [token for run, surprise in pairs for token in (*run, surprise)]
    broken_early = [token for run, surprise in pairs for token in (surprise, *run)]
    others = chance.choices(prefix[1:], k=len(listed))
    reordered = chance.sample(prefix[1:], k=len(prefix) - 1)
    return Probe(
        told=(*prefix, *listed, *broken),
        untold=(*prefix, *others, *broken),
        shuffled=(prefix[0], *reordered, *listed, *broken_early),
        prefix=len(prefix),
        groups=groups,
    )


def ask(tokens: Sequence[int], spans: Sequence[Span]) -> WirePrompt:
    """Return a prompt of the self-test that asks for ``spans``."""
    names = tuple(f"self-test {start}:{end}" for start, end in spans)
    return WirePrompt(tuple(tokens), (), tuple(spans), names)
