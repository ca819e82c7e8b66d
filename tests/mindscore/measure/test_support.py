import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindscore.measure.support import standard_scores, support

values = st.lists(st.floats(-50, 50), min_size=2, max_size=12)


def test_what_two_measures_agree_on_comes_first():
    drop, hold = [0.1, 2.0, 1.9, 0.0], [0.2, 0.1, 3.0, 0.0]
    found = support([drop, hold])
    assert max(range(4), key=found.__getitem__) == 2
    assert sum(found) == pytest.approx(0.0, abs=1e-9)


def test_redundant_memories_are_found_by_what_they_do_alone():
    # Both say the same: neither is missed.
    found = support([[0.0, 0.1, 0.0, 0.2], [6.0, 0.3, 6.0, 0.1]])
    assert sorted(sorted(range(4), key=found.__getitem__)[-2:]) == [0, 2]


def test_the_unit_of_a_measure_does_not_matter():
    drop, words = [0.1, 2.0, 0.3], [5.0, 1.0, 0.0]
    assert support([drop, words]) == pytest.approx(
        support([[1000 * it + 7 for it in drop], words]), abs=1e-9
    )


def test_a_measure_that_tells_nothing_apart_changes_nothing():
    drop = [0.1, 2.0, 0.3]
    assert support([drop, [0.7] * 3]) == standard_scores(drop)
    assert support([[0.1 + 0.2] * 3]) == [0.0] * 3


@given(values)
def test_standard_scores_have_the_mean_0_and_the_deviation_1_or_are_0(column):
    found = standard_scores(column)
    assert sum(found) == pytest.approx(0.0, abs=1e-6)
    size = math.fsum(it * it for it in found) / len(found)
    assert size == pytest.approx(1.0) or not any(found)
    assert max(found) <= math.sqrt(len(found) - 1) + 1e-6


def test_no_memory_has_no_score():
    assert support([[], []]) == standard_scores([]) == []


def test_every_measure_has_a_value_for_each_memory():
    with pytest.raises(ValueError, match="zip"):
        support([[1.0, 2.0], [1.0]])
