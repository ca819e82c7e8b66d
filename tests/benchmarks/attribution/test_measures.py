import pytest

from benchmarks.attribution.measures import (
    additive_fit,
    auroc,
    interval,
    rank_correlation,
    reciprocal_rank,
    top_one,
)


def test_top_one_is_the_share_of_the_largest_that_is_labelled():
    assert top_one([1.0, 3.0, 2.0], [False, True, False]) == 1.0
    assert top_one([1.0, 3.0, 2.0], [True, False, True]) == 0.0
    assert top_one([3.0, 3.0, 0.0], [True, False, False]) == 0.5


def test_the_rank_is_that_of_the_first_labelled_and_equal_ones_share_it():
    assert reciprocal_rank([4.0, 3.0, 2.0, 1.0], [False, False, True, True]) == 1 / 3
    assert reciprocal_rank([0.0, 0.0, 0.0], [True, False, False]) == 1 / 2


def test_auroc_is_the_chance_of_a_labelled_one_being_larger():
    assert auroc([3.0, 1.0, 2.0, 0.0], [True, False, True, False]) == 1.0
    assert auroc([1.0, 3.0, 2.0], [True, False, False]) == 0.0
    assert auroc([1.0, 1.0], [True, False]) == 0.5
    assert auroc([1.0, 2.0], [False, False]) is None


def test_rank_correlation_is_of_ranks_with_shared_ones():
    assert rank_correlation([1.0, 2.0, 30.0], [0.1, 0.2, 0.3]) == pytest.approx(1.0)
    # By hand: ranks 1, 2.5, 2.5 and 1, 2, 3.
    assert rank_correlation([0.0, 5.0, 5.0], [1.0, 2.0, 3.0]) == pytest.approx(0.866025)
    assert rank_correlation([1.0, 1.0], [1.0, 2.0]) is None


def test_additive_values_predict_additive_answers():
    masks = ["110", "101", "011", "001", "100"]
    values = [1.0, 2.0, 4.0]
    totals = [sum(v for v, kept in zip(values, mask, strict=True) if kept == "1") for mask in masks]
    assert additive_fit(values, masks, totals) == pytest.approx(1.0)
    assert additive_fit([-it for it in values], masks, totals) == pytest.approx(-1.0)


def test_the_interval_holds_the_mean_and_narrows_with_more_answers():
    low, high = interval([0.0, 1.0] * 8)
    closer = interval([0.0, 1.0] * 200)
    assert low < 0.5 < high
    assert closer[1] - closer[0] < high - low
    assert interval([1.0] * 5) == (1.0, 1.0)
