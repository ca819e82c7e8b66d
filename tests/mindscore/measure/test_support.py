import pytest

from mindscore.measure.support import candidates, support


def first(values):
    return max(range(len(values)), key=values.__getitem__)


def test_what_is_said_twice_is_found_by_its_words():
    # Neither of the first two is missed alone, the third moves the response by chance.
    assert first(support([0.0, 0.0, 0.4], [6.0, 5.5, 0.0])) == 0


def test_of_two_about_the_same_the_one_that_the_response_needs_is_first():
    assert first(support([0.1, 4.0, 0.0], [6.0, 5.5, 0.0])) == 1


def test_what_speaks_against_the_response_is_behind_what_says_nothing():
    found = support([-9.0, 0.0], [5.0, 0.0])
    assert found[0] < found[1]


def test_what_was_not_measured_is_ranked_by_its_words():
    assert support([None, 2.0, None], [1.5, 0.5, 0.0]) == [1.5, 2.5, 0.0]


def test_the_candidates_have_the_most_words_in_common():
    assert candidates([0.5, 3.0, 0.0, 3.0, 1.0], 3) == [1, 3, 4]
    assert candidates([0.5], 3) == [0]


def test_every_memory_has_both():
    with pytest.raises(ValueError, match="zip"):
        support([1.0, 2.0], [1.0])
