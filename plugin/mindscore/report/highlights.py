"""What memories did to single tokens, packed so that a page can hold it."""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from mindhooks import ResponseDivergence
from mindscore.divergence import within_noise

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
