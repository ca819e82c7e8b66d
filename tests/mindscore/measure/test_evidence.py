"""Evidence in columns, and each cell against its response's null."""

from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mindscore.measure.planted import columns

from mindscore.measure.divergence import column_spread, noise_limit
from mindscore.measure.evidence import MemoryVersion, grouped_median, judged_cells

NATS = st.floats(-50, 50).map(lambda it: round(it, 3))


def versions(number):
    return [MemoryVersion(f"m{index}") for index in range(number)]


@given(st.lists(st.lists(NATS, max_size=9), max_size=6))
def test_the_median_of_each_group_is_that_of_its_values(groups):
    numbers = [number for number, values in enumerate(groups) for _ in values]
    found, counts = grouped_median(
        np.array(numbers, int), np.array([it for values in groups for it in values]), len(groups)
    )
    assert found.tolist() == [median(values) if values else 0.0 for values in groups]
    assert counts.tolist() == [len(values) for values in groups]


@given(st.lists(st.lists(st.tuples(NATS, st.none() | st.floats(0, 5)), max_size=8), max_size=5))
def test_the_limit_of_a_cell_is_the_noise_limit_that_the_matrix_has(rows):
    """One rule for noise: ``rows`` are responses, with the effect and noise of each memory."""
    made = [
        (memory, 0, response, signed, np.nan, np.nan if noise is None else noise)
        for response, row in enumerate(rows)
        for memory, (signed, noise) in enumerate(row)
    ]
    cells = judged_cells(columns(versions(8), made))
    expected = [
        noise_limit(noise, column_spread(it[0] for it in row))
        for row in rows
        for signed, noise in row
        if signed
    ]
    assert cells.limit.tolist() == pytest.approx(expected)


def test_what_was_not_measured_and_what_cannot_have_an_effect_is_not_judged():
    cells = judged_cells(columns(versions(2), [(0, 0, 0, np.nan), (0, 0, 1, 0.0), (1, 0, 1, 2.0)]))
    assert cells.memory.tolist() == [1]


def test_an_effect_is_beyond_what_the_typical_memory_does():
    cells = judged_cells(columns(versions(5), [(at, 0, 0, 1.0 + at) for at in range(5)]))
    assert cells.effect.tolist() == [-2, -1, 0, 1, 2]
    few = judged_cells(columns(versions(4), [(at, 0, 0, 1.0 + at) for at in range(4)]))
    assert few.effect.tolist() == [1, 2, 3, 4]


def test_without_a_null_an_effect_is_as_large_as_its_nats_however_little_noise():
    cells = judged_cells(columns(versions(1), [(0, 0, 0, 2.0, np.nan, 0.0)]))
    assert (cells.limit.tolist(), cells.size.tolist()) == ([0.0], [2.0])


def test_no_evidence_at_all_is_fine():
    assert not len(judged_cells(columns(versions(3), [])).memory)


def test_a_memory_and_a_response_that_meet_twice_are_refused():
    with pytest.raises(ValueError, match="two cells"):
        judged_cells(columns(versions(1), [(0, 0, 7, 1.0), (0, 0, 7, 2.0)]))


def test_a_memory_without_a_version_is_refused():
    with pytest.raises(ValueError, match="index below 1"):
        columns(versions(1), [(1, 0, 0, 1.0)])


def test_columns_of_different_lengths_are_refused():
    made = columns(versions(1), [(0, 0, 0, 1.0)])
    with pytest.raises(ValueError, match="differ in length"):
        type(made)(made.versions, made.memory, *[made.response] * 2, *[np.zeros(2)] * 4)
