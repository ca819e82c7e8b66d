"""Differences by token, packed."""

import base64
import struct

import pytest

from mindhooks import ResponseDivergence
from mindscore.report.ranking import pack

ROOM = 100


def cell(*tokens, noise=0.0):
    signed = sum(tokens)
    return ResponseDivergence(1, "r", max(0.0, signed), signed, noise, tokens)


def unpacked(packed):
    raw = base64.b64decode(packed.data)
    return list(struct.unpack(f"<{len(raw) // 2}h", raw))


def test_tokens_are_told_in_hundredths_row_by_row():
    rows = [[(1, cell(1.234, -0.006))], [(0, cell(-2.0)), (1, cell(0.5, 0.5))]]
    packed = pack(rows, [1, 2], 0.01, {}, ROOM)
    assert packed.cells == [[1], [0, 1]]
    assert unpacked(packed) == [123, -1, -200, 50, 50]
    assert packed.left_out == 0


def test_what_is_no_effect_is_not_packed():
    rows = [[(0, cell(0.005)), (1, cell(0.4, noise=0.5)), (2, cell(0.6, noise=0.5))]]
    assert pack(rows, [1, 1, 1], 0.01, {}, ROOM).cells == [[2]]


def test_noise_that_is_not_measured_is_assumed_and_a_columns_spread_counts():
    rows = [[(0, cell(0.9, noise=None)), (1, cell(1.1, noise=None))]]
    assert pack(rows, [1, 1], 0.01, {}, ROOM).cells == [[1]]
    assert pack(rows, [1, 1], 0.01, {"r": 1.2}, ROOM).cells == [[]]


def test_a_response_without_words_is_not_packed():
    rows = [[(0, cell(1.0)), (1, cell(1.0)), (2, cell(1.0))]]
    assert pack(rows, [None, 2, 1], 0.01, {}, ROOM).cells == [[2]]


@pytest.mark.parametrize("rows", [[], [[]], [[(0, ResponseDivergence(1, "r", 2.0, 2.0))]]])
def test_nothing_known_is_nothing(rows):
    assert pack(rows, [1], 0.01, {}, ROOM) is None


def test_what_is_out_of_range_is_its_end():
    assert unpacked(pack([[(0, cell(1e6, -1e7))]], [2], 0.01, {}, ROOM)) == [32767, -32767]


def test_where_there_are_too_many_the_largest_are_kept():
    rows = [[(0, cell(1.0, 1.0)), (1, cell(0.1, 0.1))], [(0, cell(-3.0, -1.0))]]
    packed = pack(rows, [2, 2], 0.01, {}, 4)
    assert packed.cells == [[0], [0]]
    assert packed.left_out == 1
