"""Memories ranked, and the words that a memory made likelier."""

from __future__ import annotations

import math
import sys
from array import array
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from mindhooks import MemoryScore, ResponseDivergence
from mindscore.measure.divergence import within_noise
from mindscore.session.result import NOT_SCORED, Result

STEP = 0.01
"""Nats of a unit."""

TOKENS_PER_BYTE = 3 / 8
"""Of the page: two bytes each, in base64."""

_LARGEST = 2**15 - 1


@dataclass(frozen=True, slots=True)
class Highlights:
    """Differences by token: ``cells[row]`` has the columns whose tokens are in ``data``, in order.

    ``data`` is base64 of 16-bit integers, little-endian, of ``STEP`` nats. ``left_out`` cells did
    not fit, the smallest.
    """

    cells: list[list[int]]
    data: str
    left_out: int


def pack(
    rows: Sequence[Sequence[tuple[int, ResponseDivergence]]],
    lengths: Sequence[int | None],
    least: float,
    room: int,
) -> Highlights | None:
    """Pack the cells of each row that are above ``least`` nats, and not within noise.

    A row is columns with their cells; ``lengths`` are the tokens of each column's response, those
    of ``None`` are left out; ``room`` is for so many tokens. ``None``: nothing is known of single
    tokens.
    """
    found = [
        (row, column, cell, cell.tokens)
        for row, cells in enumerate(rows)
        for column, cell in cells
        if cell.tokens is not None
    ]
    if not found:
        return None
    clear = [
        (row, column, abs(cell.signed), tokens)
        for row, column, cell, tokens in found
        if abs(cell.signed) > least and not within_noise(cell) and len(tokens) == lengths[column]
    ]
    kept = []
    for row, column, _, tokens in sorted(clear, key=lambda it: -it[2]):
        room -= len(tokens)
        if room < 0:
            break
        kept.append((row, column, tokens))
    packed, columns = array("h"), [list[int]() for _ in rows]
    for row, column, tokens in sorted(kept):
        columns[row].append(column)
        units = (round(value / STEP) for value in tokens)
        packed.extend(max(-_LARGEST, min(_LARGEST, unit)) for unit in units)
    if sys.byteorder == "big":
        packed.byteswap()
    return Highlights(columns, b64encode(packed.tobytes()).decode(), len(clear) - len(kept))


@dataclass(frozen=True, slots=True)
class Standing:
    """A memory among the others, in nats; ``None`` where it was not scored.

    ``largest`` is its score, ``is_noise`` whether that varies as much when nothing is removed; if
    not, ``most_on`` is the response that it is of. The rest counts only what is clear of noise:
    ``highest`` and ``lowest`` are what it did to the responses that it helped and harmed most,
    ``total`` is the sum of its divergences, ``likelier`` and ``less_likely`` are on how many
    responses it had an effect.
    """

    key: str
    text: str
    status: str
    why: str
    largest: float | None
    is_noise: bool
    highest: float | None
    lowest: float | None
    total: float | None
    likelier: int
    less_likely: int
    most_on: int | None

    @property
    def effect(self) -> str:
        """``"likelier"``, ``"less"``, ``"mixed"``, ``"none"``, or ``""`` where not scored."""
        if self.largest is None:
            return ""
        kinds = {(True, True): "mixed", (True, False): "likelier", (False, True): "less"}
        return kinds.get((self.likelier > 0, self.less_likely > 0), "none")


def standings(result: Result, texts: dict[str, str], least: float) -> list[Standing]:
    """Every memory that was asked for, what helped most first and what was not scored last.

    What is at most ``least`` nats, or within noise, is no effect.
    """
    found = [
        _standing(result, key, texts.get(key, ""), result.scores.get(key), least)
        for key in result.keys
    ]
    return sorted(found, key=_rank, reverse=True)


def _rank(it: Standing) -> tuple[float, float]:
    if it.highest is None or it.largest is None:
        return (-math.inf, -math.inf)
    return (it.highest, it.largest)


def _standing(
    result: Result, key: str, text: str, score: MemoryScore | None, least: float
) -> Standing:
    outcome = result.outcome(key)
    why = outcome.error or NOT_SCORED.get(outcome.status, "")
    if score is None:
        nothing = (None, False, None, None, None, 0, 0, None)
        return Standing(key, text, outcome.status, why, *nothing)
    clear = [it for it in score.divergences if not within_noise(it)]
    signed = [it.signed for it in clear]
    largest = max(score.divergences, key=lambda it: it.divergence, default=None)
    is_noise = largest is not None and within_noise(largest)
    return Standing(
        key,
        text,
        outcome.status,
        why,
        largest=score.score,
        is_noise=is_noise,
        highest=max((it.divergence for it in clear), default=0.0),
        lowest=min(signed, default=0.0),
        total=sum(it.divergence for it in clear),
        likelier=sum(it > least for it in signed),
        less_likely=sum(it < -least for it in signed),
        most_on=largest.entry_idx
        if largest and not is_noise and largest.divergence > least
        else None,
    )
