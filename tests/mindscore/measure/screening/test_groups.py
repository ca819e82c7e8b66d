"""Groups of memories that are removed together, and divided where that does something."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindscore.measure.screening.groups import (
    NEIGHBOURS,
    GroupSearch,
    Place,
    divide,
    first_groups,
    unexplained,
)

RESPONSES = 40


def found_by_groups(effects, memories, *, lift=0.0, noise=0.0, most=10**6, seed=0, usual=None):
    """Search a made conversation; return the estimates, and how many prompts that took."""
    chance = random.Random(seed)
    keys = [f"m{n:03}" for n in range(memories)]
    places = {key: Place(10, 0) for key in keys}
    usual = abs(lift) * 10 + noise if usual is None else usual
    search = GroupSearch(
        places, dict.fromkeys(keys, 1.0), 0.5, dict.fromkeys(range(RESPONSES), usual)
    )

    def removing(gone):
        sums = {response: lift * 10 * len(gone) for response in range(RESPONSES)}
        for key in gone:
            for response, nats in effects.get(key, {}).items():
                sums[response] += nats
        return {it: nats + chance.gauss(0, noise) * len(gone) ** 0.5 for it, nats in sums.items()}

    first = search.first_passes()
    search.take_first(first, [removing(it) for it in first])
    passes = len(first)
    while not search.is_done and passes < most:
        sets = search.passes(most - passes)
        search.take([removing(it) for it in sets])
        passes += len(sets)
    return search.estimates({}), passes


def sparse(matter, apiece, seed, memories=200, sign=1):
    """A few memories, each with a few large effects: of one sign, as two in a group may cancel."""
    chance = random.Random(seed)
    return {
        f"m{n:03}": {
            response: sign * chance.uniform(3, 9)
            for response in chance.sample(range(RESPONSES), apiece)
        }
        for n in chance.sample(range(memories), matter)
    }


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 8),
    st.integers(1, 4),
    st.integers(0, 1000),
    st.sampled_from([0.0, -0.01]),
    st.sampled_from([-1, 1]),
)
def test_every_one_of_few_effects_is_found_without_more_prompts_than_memories(
    matter, apiece, seed, lift, sign
):
    effects = sparse(matter, apiece, seed, sign=sign)
    estimates, passes = found_by_groups(effects, 200, lift=lift)
    for key, its in effects.items():
        nats, response = max((abs(nats), response) for response, nats in its.items())
        assert abs(estimates[key][response]) == pytest.approx(nats, abs=1.0)
    assert passes < 200
    pointed = {key for key, its in estimates.items() if max(map(abs, its.values())) >= 0.5}
    assert pointed == effects.keys()


def test_effects_on_different_responses_are_told_apart_by_the_same_prompts():
    effects = {f"m{n * 19:03}": {n: 5.0} for n in range(10)}
    _, passes = found_by_groups(effects, 200)
    # The first groups, and one prompt for each time that a group of 20 is halved.
    assert passes == first_groups(200) + 5


def test_prompts_end_behind_the_last_response_that_they_are_for_and_only_one_goes_to_the_end():
    keys = [f"m{n:03}" for n in range(200)]
    search = GroupSearch(
        {key: Place(10, 0) for key in keys},
        dict.fromkeys(keys, 1.0),
        0.5,
        dict.fromkeys(range(RESPONSES), 0.0),
    )
    first = search.first_passes()
    # Three groups matter to the response 5, two of these and another to a late one each.
    matter = {0: {5: 6.0}, 1: {5: 4.0, 39: 3.0}, 2: {5: 9.0, 30: 2.0}, 3: {20: 3.0}}
    told = [
        {it: matter.get(at, {}).get(it, 0.0) for it in range(RESPONSES)} for at in range(len(first))
    ]
    search.take_first(first, told)
    sets = search.passes(9)
    groups = [[at for at, group in enumerate(first) if {*group} & {*its}] for its in sets]
    assert groups == [[1, 3], [2], [0]]
    assert search.ends == [39 + NEIGHBOURS, 30 + NEIGHBOURS, 5 + NEIGHBOURS]
    # Where not all fit, those that do most come first.
    sets = search.passes(1)
    groups = [[at for at, group in enumerate(first) if {*group} & {*its}] for its in sets]
    assert groups == [[2, 3]]


def test_memories_that_all_matter_to_the_same_responses_are_found_at_more_cost():
    effects = {f"m{n * 19:03}": {3: 5.0, 7: -4.0} for n in range(10)}
    estimates, passes = found_by_groups(effects, 200, noise=0.01)
    assert {key for key, its in estimates.items() if abs(its[3]) >= 0.5} == effects.keys()
    assert first_groups(200) + 5 < passes < 80


def test_noise_of_groups_is_no_effect():
    _, passes = found_by_groups({}, 200, noise=0.2)
    assert passes <= first_groups(200) + 12


def test_no_more_prompts_are_asked_for_than_are_allowed():
    effects = sparse(60, 20, 1)
    _, passes = found_by_groups(effects, 200, most=25)
    assert passes == 25


def test_a_group_that_was_not_divided_shares_its_effect_among_its_members():
    search = GroupSearch(
        {"a": Place(5, 0), "b": Place(5, 0), "late": Place(5, 2)},
        {"a": 1.0, "b": 1.0, "late": 0.0},
        0.5,
        {0: 0.0, 1: 0.0, 2: 0.0},
    )
    search.take_first([("a", "b", "late")], [{0: 2.0, 1: 0.2, 2: 3.0}])
    even = search.estimates({})
    assert even == {
        "a": {0: 1.0, 1: 0.1, 2: 1.0},
        "b": {0: 1.0, 1: 0.1, 2: 1.0},
        "late": {2: 1.0},
    }
    shared = search.estimates({"a": {0: 3.0}, "b": {0: 1.0}})
    assert (shared["a"][0], shared["b"][0], shared["a"][1]) == (1.5, 0.5, 0.1)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=40), st.integers(1, 40))
def test_dividing_loses_nothing_and_leaves_no_stretch_empty(weights, count):
    keys = [f"{n}" for n in range(len(weights))]
    count = min(count, len(keys))
    found = divide(keys, dict(zip(keys, weights, strict=True)), count)
    assert [key for stretch in found for key in stretch] == keys
    assert len(found) == count
    assert all(found)


def test_what_does_not_add_up_stands_out_from_what_all_responses_show():
    expected = dict.fromkeys(range(20), -1.0)
    together = {it: -3.0 + 0.01 * (it % 3) for it in range(20)}
    assert unexplained(together, expected) == {}
    leads = unexplained({**together, 4: 2.0}, expected)
    assert leads.keys() == {4}
    assert leads[4] == pytest.approx(5.0, abs=0.1)


def crowded():
    """A search of 40 memories, of which four in different groups matter to the same response."""
    keys = [f"m{n:02}" for n in range(40)]
    search = GroupSearch(
        {key: Place(10, 0) for key in keys}, dict.fromkeys(keys, 1.0), 0.5, {0: 0.0, 1: 0.0}
    )
    effects = {"m05": {0: 4.0}, "m13": {0: 3.0}, "m21": {0: 6.0}, "m29": {0: 5.0}, "m33": {1: 5.0}}
    first = search.first_passes()
    found = [
        {it: sum(effects.get(key, {}).get(it, 0.0) for key in group) for it in (0, 1)}
        for group in first
    ]
    search.take_first(first, found)
    return search, effects


def test_words_name_suspects_of_groups_that_matter_to_the_same_responses():
    search, _ = crowded()
    words = {"m05": {0: 2.0}, "m06": {0: 1.0, 1: 9.0}, "m22": {0: 1.0}, "m33": {1: 3.0}}
    # That of the group that does most comes first; one group alone matters to the other response.
    assert search.suspects(words) == ["m22", "m05"]
    assert search.suspects({}) == []


def test_a_memory_that_explains_its_group_leaves_nothing_to_be_divided():
    search, effects = crowded()
    assert not search.explain("m22", {0: 0.01, 1: 0.0})
    words = {key: {0: 1.0} for key in effects}
    assert search.suspects(words) == ["m21", "m29", "m05", "m13"]
    assert search.explain("m05", effects["m05"] | {1: 0.0})
    assert search.suspects(words) == ["m21", "m29", "m13"]
    divided = {key for keys in search.passes(9) for key in keys}
    assert divided & {"m20", "m21", "m23"}
    assert not divided & {"m04", "m06", "m07"}
    estimates = search.estimates({})
    assert "m05" not in estimates
    assert estimates["m04"][0] == pytest.approx(0.0)
