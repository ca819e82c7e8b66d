"""The bound on what a screen missed."""

import random
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindscore.measure.screening.receipt import (
    CONFIDENCE,
    MissedBound,
    missed_bound,
    most_in_population,
)


@given(st.integers(1, 60), st.data())
def test_the_bound_fails_for_no_population_more_often_than_its_confidence_allows(rest, data):
    having = data.draw(st.integers(0, rest))
    sampled = data.draw(st.integers(0, rest))
    # Every sample that there is, by how many of it have the property.
    failing = sum(
        comb(having, found) * comb(rest - having, sampled - found)
        for found in range(max(0, sampled - (rest - having)), min(sampled, having) + 1)
        if most_in_population(rest, sampled, found) < having
    )
    assert failing / comb(rest, sampled) <= 1 - CONFIDENCE + 1e-12


@given(st.integers(1, 200), st.data())
def test_a_whole_sample_leaves_nothing_open_and_none_leaves_everything(rest, data):
    found = data.draw(st.integers(0, rest))
    assert most_in_population(rest, rest, found) == found
    assert most_in_population(rest, 0, 0) == rest


@pytest.mark.parametrize(("sampled", "most"), [(8, 42), (20, 18), (59, 5)])
def test_a_larger_sample_that_finds_nothing_allows_for_less(sampled, most):
    bound = missed_bound(1.0, 140, sampled, 0, 0)
    assert bound == MissedBound(1.0, sampled, 0, 140, most)


def test_what_was_found_is_not_missed():
    assert missed_bound(1.0, 100, 8, 1, 0).most == missed_bound(1.0, 100, 8, 1, 4).most + 4
    assert missed_bound(1.0, 100, 8, 0, 90).most == 0


def test_the_bound_holds_over_simulated_samples():
    chance, failed = random.Random(1), 0
    for _ in range(2000):
        having = set(range(40))
        sample = chance.sample(range(200), 20)
        bound = missed_bound(1.0, 200, 20, len(having & set(sample)), 0)
        failed += len(having - set(sample)) > bound.most
    assert failed <= 2000 * (1 - CONFIDENCE) * 1.3
