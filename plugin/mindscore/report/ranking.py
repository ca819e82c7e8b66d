"""Rank memories, and pack their effect on single tokens."""

from __future__ import annotations

import math
import sys
from array import array
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mindhooks import MemoryScore, ResponseDivergence
from mindscore._util.text import moment_text
from mindscore.measure.divergence import is_assumed, is_indistinct
from mindscore.measure.screening.plain import largest_of
from mindscore.session.result import NOT_SCORED, Result

STEP = 0.01
"""Nats of one unit of packed data."""

TOKENS_PER_BYTE = 3 / 8
"""Tokens in a byte of the page: two bytes each, in base64."""

_LARGEST = 2**15 - 1


@dataclass(frozen=True, slots=True)
class Highlights:
    """Differences by token: ``cells[row]`` lists the columns that ``data`` has, in order.

    ``data`` is base64 of little-endian 16-bit integers in units of ``STEP`` nats; ``left_out`` is
    the number of cells, the smallest, that did not fit.
    """

    cells: list[list[int]]
    data: str
    left_out: int


def pack(
    rows: Sequence[Sequence[tuple[int, ResponseDivergence]]],
    lengths: Sequence[int | None],
    least: float,
    spreads: Mapping[str, float],
    room: int,
) -> Highlights | None:
    """Pack the cells of each row that are above ``least`` nats, and not ``is_indistinct``.

    Args:
        rows: per memory, columns with their cells.
        lengths: tokens of each column's response; a column with ``None`` is left out.
        least: nats.
        spreads: of each response, by node id.
        room: tokens that fit.

    Returns:
        ``None`` where no cell has values of tokens.
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
        if abs(cell.signed) > least
        and not is_indistinct(cell, spreads)
        and len(tokens) == lengths[column]
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
    """A memory's effect, in nats; ``None`` where it was not scored.

    Noise is as ``is_indistinct`` has it.

    ``largest`` is its score, ``is_noise`` whether that is within noise, ``is_assumed`` whether that
    noise is assumed; if it is not within noise, ``most_on`` is the
    index of the response that it comes from. The rest ignores cells within noise: ``highest`` and
    ``lowest`` are the effects on the responses that it helped and harmed most, ``total`` is the sum
    of its divergences, ``likelier`` and ``less_likely`` count the responses that it affected.
    ``before`` is the incremental score of an earlier run, ``before_at`` its time. Of a memory that
    was not scored, ``estimate`` is the largest that a screen has of it, signed, on the response
    ``estimate_on``.
    """

    key: str
    text: str
    status: str
    why: str
    largest: float | None
    is_noise: bool
    is_assumed: bool
    highest: float | None
    lowest: float | None
    total: float | None
    likelier: int
    less_likely: int
    most_on: int | None
    before: float | None = None
    before_at: str = ""
    estimate: float | None = None
    estimate_on: int | None = None

    @property
    def effect(self) -> str:
        """``"likelier"``, ``"less"``, ``"mixed"``, ``"none"``, or ``""`` if it was not scored."""
        if self.largest is None:
            return ""
        kinds = {(True, True): "mixed", (True, False): "likelier", (False, True): "less"}
        return kinds.get((self.likelier > 0, self.less_likely > 0), "none")


def standings(result: Result, texts: dict[str, str], least: float) -> list[Standing]:
    """Return every memory asked for, the most helpful first and those not scored last.

    At most ``least`` nats, or within noise, counts as no effect.
    """
    spreads = result.spreads
    guessed = {it.key: (it.nats, it.entry_idx) for it in largest_of(result.estimates)}
    found = []
    for key in result.keys:
        score = result.scores.get(key)
        it = _standing(result, key, texts.get(key, ""), score, least, spreads)
        if score is None and key in guessed:
            nats, on = guessed[key]
            it = replace(it, estimate=nats, estimate_on=on)
        found.append(it)
    return sorted(found, key=_rank, reverse=True)


def _rank(it: Standing) -> tuple[float, float, float]:
    """Return what memories are ordered by: an estimate never comes before what was measured."""
    guess = -1.0 if it.estimate is None else abs(it.estimate)
    if it.highest is None or it.largest is None:
        return (-math.inf, -math.inf if it.before is None else it.before, guess)
    return (it.highest, it.largest, guess)


def _standing(
    result: Result,
    key: str,
    text: str,
    score: MemoryScore | None,
    least: float,
    spreads: Mapping[str, float],
) -> Standing:
    outcome = result.outcome(key)
    why = outcome.error or NOT_SCORED.get(outcome.status, "")
    known = result.known.get(key)
    before = (known.score, moment_text(known.scored_at)) if known else (None, "")
    if score is None:
        nothing = (None, False, False, None, None, None, 0, 0, None)
        return Standing(key, text, outcome.status, why, *nothing, *before)
    clear = [it for it in score.divergences if not is_indistinct(it, spreads)]
    signed = [it.signed for it in clear]
    largest = max(score.divergences, key=lambda it: it.divergence, default=None)
    is_noise = largest is not None and is_indistinct(largest, spreads)
    return Standing(
        key,
        text,
        outcome.status,
        why,
        largest=score.score,
        is_noise=is_noise,
        is_assumed=largest is not None
        and largest.signed != 0
        and is_assumed(largest.noise, spreads[largest.node_id]),
        highest=max((it.divergence for it in clear), default=0.0),
        lowest=min(signed, default=0.0),
        total=sum(it.divergence for it in clear),
        likelier=sum(it > least for it in signed),
        less_likely=sum(it < -least for it in signed),
        most_on=largest.entry_idx
        if largest and not is_noise and largest.divergence > least
        else None,
        before=before[0],
        before_at=before[1],
    )
