"""The memories to measure exactly, and estimates beside what was measured."""

import pytest

from mindscore.measure.screening.choice import (
    draw,
    errors,
    rank_correlation,
    to_confirm,
    top_found,
    usual_effects,
    weights_of_words,
)


def test_large_estimates_are_confirmed_at_any_cost_the_largest_first_whatever_their_sign():
    estimates = {"a": {0: 1.1}, "b": {1: -2.0}, "c": {2: 0.6}, "d": {3: 0.05}, "e": {}}
    assert to_confirm(estimates, 0.5) == (["b", "a"], ["c"])


def test_the_best_of_a_response_are_tried_too_if_they_are_not_far_below():
    estimates = {"a": {0: 0.9}, "b": {0: 0.4}, "c": {0: 0.3}, "d": {0: 0.26}, "e": {1: 0.2}}
    assert to_confirm(estimates, 0.5) == ([], ["a", "b", "e", "c"])
    assert to_confirm({**estimates, "a": {0: 9.0}}, 0.5) == (["a"], ["e"])


def test_one_that_has_few_above_it_comes_before_one_that_has_many():
    tops = {f"t{n}": {0: 0.9} for n in range(4)}
    _, others = to_confirm({**tops, "low": {0: 0.8}, "only": {1: 0.5}}, 0.5)
    assert others == ["t3", "t2", "t1", "only", "t0", "low"]


def test_the_same_seed_draws_the_same_and_another_seed_others():
    keys = [f"{n}" for n in range(100)]
    assert draw(keys, 8, "one") == draw(keys, 8, "one") != draw(keys, 8, "two")
    assert sorted(draw(keys, 200, "one")) == sorted(keys)


def test_every_memory_is_drawn_as_often_as_any_other():
    counts = dict.fromkeys("abcde", 0)
    for seed in range(1000):
        for key in draw("abcde", 2, f"{seed}"):
            counts[key] += 1
    assert all(320 < it < 480 for it in counts.values())


def test_errors_are_those_of_every_measured_cell():
    exact = {"a": {n: float(n) for n in range(21)}}
    assert errors({}, exact) == (10.0, 19.0)
    assert errors(exact, exact) == (0.0, 0.0)
    assert errors({}, {}) == (None, None)
    assert errors({"a": {0: 1.0}}, {"a": {0: -1.0}}) == (2.0, 2.0)


def test_ranks_correlate_whatever_the_scale_and_equal_values_share_theirs():
    exact = {"a": {n: float(n) for n in range(6)}}
    assert rank_correlation({"a": {n: -(n**3) for n in range(6)}}, exact) == pytest.approx(1.0)
    assert rank_correlation({"a": {n: 6 - n for n in range(6)}}, exact) == pytest.approx(-1.0)
    assert rank_correlation({"a": {0: 1, 1: 1, 2: 1, 3: 2, 4: 2, 5: 2}}, exact) == pytest.approx(
        0.878, abs=1e-3
    )
    assert rank_correlation({}, exact) is None
    assert rank_correlation(exact, {"a": {0: 1.0}}) is None


def test_the_top_of_each_response_on_which_one_does_much_is_found_or_not():
    exact = {"a": {0: 3.0, 1: 0.1, 2: 2.0}, "b": {0: 1.0, 1: 0.2, 2: 4.0}}
    assert top_found({"a": {0: 5.0}, "b": {}}, exact, 0.5) == 0.5
    assert top_found(exact, exact, 0.5) == 1.0
    assert top_found(exact, exact, 9.0) is None


def test_memories_that_share_more_words_weigh_more_and_none_weighs_nothing():
    weights = weights_of_words(["a", "b", "c"], {"a": {0: 1.0, 1: 3.0}, "b": {0: 1.0}})
    assert weights["a"] > weights["b"] > weights["c"] > 0
    assert sum(weights.values()) == pytest.approx(3)
    assert weights_of_words(["a", "b"], {}) == {"a": 1.0, "b": 1.0}


def test_usual_effects_are_those_of_the_memories_before_a_response():
    rows = {"a": {0: 0.1, 1: 0.1}, "b": {0: -0.3, 1: 0.1}, "c": {0: 9.0, 1: 0.1}, "d": {2: 0.2}}
    assert usual_effects(rows, 4) == {0: 0.3, 1: 0.1, 2: 0.1, 3: 0.1}
    assert usual_effects({}, 2) == {0: 0.0, 1: 0.0}
