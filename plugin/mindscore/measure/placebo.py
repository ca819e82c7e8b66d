"""A control for the place: what removing an unrelated text of equal length does.

To remove a memory also moves what follows it, and takes a stretch of text away. A control puts an
unrelated text of exactly as many tokens in the memory's place, and compares with the prompt without
the memory: no position differs from those of the memory's own comparison.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from statistics import median

from mindhooks import WirePrompt
from mindscore._util.text import count_of
from mindscore.measure.divergence import FEWEST, OF_MEDIAN
from mindscore.measure.prompts import common_prefix

MOST_PLACES = 16
"""Memories of a run whose places are controlled, at most."""

UNRELATED = (
    "Lighthouse keepers once trimmed the wicks at dusk and logged the weather every four hours. ",
    "Slate splits along its cleavage, so quarrymen turned each block before the first blow. ",
    "The glacier left a ridge of gravel behind it, and the river bent twice to get around. ",
    "A loom of that width needs two weavers, one at each side, to throw the shuttle across. ",
    "Salt pans are filled in spring, skimmed through the summer and raked before the rains. ",
    "Barometers of the period hung in a gimbal, so that a rolling deck did not spill the mercury. ",
    "Most of the canal was dug by hand, with puddled clay laid along the bed to hold the water. ",
    "Beech leaves rot slowly, which is why so little grows on the floor of a beech wood. ",
)
"""Sentences that conversations with an assistant rarely have to do with."""


@dataclass(frozen=True, slots=True)
class PlaceboControl:
    """The effect of an unrelated text in the places of memories.

    Attributes:
        keys: the memories whose places were controlled.
        spread: the nats within which an effect on a response may come from the place alone, by node
            id: ``OF_MEDIAN`` times the median size over the places, or the largest of few.
        is_framed: what the template prints round the memory was replaced with it: of a single
            memory, it could not be told from its text.
    """

    keys: tuple[str, ...]
    spread: Mapping[str, float]
    is_framed: bool = False

    @property
    def remark(self) -> str:
        """A line on what the places alone do."""
        sizes = self.spread.values()
        return (
            f"an unrelated text in the place of a memory changes a response by up to "
            f"{median(sizes):.2f} nats (median of {count_of(len(sizes), 'response')}, largest "
            f"{max(sizes):.2f}; {count_of(len(self.keys), 'place')} tried"
            f"{', with what the template prints round it' * self.is_framed})"
        )

    @classmethod
    def of(
        cls, effects: Mapping[str, Mapping[str, float]], *, is_framed: bool = False
    ) -> PlaceboControl:
        """Return the control of ``effects``: signed nats by memory, then by node id."""
        columns: dict[str, list[float]] = defaultdict(list)
        for row in effects.values():
            for node_id, signed in row.items():
                columns[node_id].append(abs(signed))
        spread = {
            id_: OF_MEDIAN * median(sizes) if len(sizes) >= FEWEST else max(sizes)
            for id_, sizes in columns.items()
        }
        return cls(tuple(effects), spread, is_framed)


def spread_evenly(keys: Sequence[str], most: int = MOST_PLACES) -> list[str]:
    """Return at most ``most`` of ``keys``, from the first to the last at equal distances."""
    if len(keys) <= most:
        return list(keys)
    return [keys[round(at * (len(keys) - 1) / (most - 1))] for at in range(most)]


def with_filler(
    prompt: WirePrompt,
    spans: Iterable[tuple[int, int]],
    filler: Sequence[int],
    kept: tuple[int, int],
) -> WirePrompt:
    """Return ``prompt`` with ids of ``filler`` in the place of the ``spans``, as many as there are.

    Of each span, the first and last ids that are ``kept`` stay: they are the template's.
    """
    tokens, ids = list(prompt.tokens), cycle(filler)
    first, last = kept
    for start, end in spans:
        inner = range(start + first, end - last) or range(start, end)
        tokens[inner.start : inner.stop] = islice(ids, len(inner))
    return replace(prompt, tokens=tuple(tokens))


def scaffolding(bodies: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return how many ids all ``bodies`` begin and end with alike.

    Those are what the template prints round each memory: (0, 0) where there is but one.
    """
    if len(bodies) < 2:
        return 0, 0
    one, *others = bodies
    begin = min(common_prefix(one, it) for it in others)
    end = min(common_prefix(one[::-1], it[::-1]) for it in others)
    room = min(map(len, bodies)) - 1
    begin = min(begin, room)
    return begin, min(end, room - begin)


def around(body: Sequence[int], text: Sequence[int]) -> tuple[int, int] | None:
    """Return how many ids stand before and behind those of ``text`` in ``body``.

    Its first and last may be others there, by what they stand beside. ``None``: it is not there.
    """
    inner = list(text[1:-1])
    for at in range(len(body) - len(inner) + 1) if inner else ():
        if list(body[at : at + len(inner)]) == inner:
            return max(0, at - 1), max(0, len(body) - at - len(inner) - 1)
    return None
