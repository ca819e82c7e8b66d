"""Two models on the same responses: differences, intervals, and where they part."""

import math
import random

import pytest

from mindscore.measure.comparison import (
    ComparedEffect,
    ComparedResponse,
    Comparison,
    Difference,
    parting,
)


def response(at, with_, without=(-9.0, -9.0), talk="t", **fields):
    given = {"limit": 0.01, "text": f"said {at}", **fields}
    return ComparedResponse(at, f"{talk}-{at}", talk, with_=with_, without=without, **given)


def effect(key, at, effects, talk="t", limit=0.01):
    return ComparedEffect(key, talk, at, f"{talk}-{at}", effects, limit)


def compared(responses, effects=(), unit="nats"):
    return Comparison.of("a", "b", unit, responses, effects)


# -- the mean -------------------------------------------------------------------------------------


def test_a_difference_is_the_other_model_s_value_less_the_first_one_s():
    found = compared([response(at, (-5.0, -3.0 - at)) for at in range(6)])
    assert [it.difference for it in found.responses] == [2.0, 1.0, 0.0, -1.0, -2.0, -3.0]
    assert found.mean.difference == pytest.approx(-0.5)
    assert found.mean.low < -0.5 < found.mean.high
    assert found.mean.sign == 0


def test_what_memories_add_is_compared_apart_from_how_likely_a_response_is():
    found = compared([response(at, (-5.0, -1.0), (-9.0, -5.0)) for at in range(6)])
    assert (found.mean.difference, found.need.difference) == (4.0, 0.0)


def test_models_that_agree_are_identical_and_have_no_response_beyond_noise():
    found = compared([response(at, (-5.0 - at, -5.0 - at)) for at in range(6)])
    assert found.mean == Difference(0.0, None, None, all_equal=True)
    assert (found.beyond_noise, found.is_identical) == ([], True)
    assert not compared([response(0, (-5.0, -5.0), (-9.0, -9.5))]).is_identical
    assert not compared([]).is_identical


@pytest.mark.parametrize(("others", "known"), [(-0.9, False), (-12.0, True)])
def test_where_one_response_outweighs_all_others_no_interval_is_known(others, known):
    """It would be that of a single value, and end beyond all of them."""
    changes = [-38.0, *(others + 0.1 * at for at in range(5)), *(0.01 * at for at in range(12))]
    responses = [response(at, (-5.0, -4.0)) for at in range(len(changes))]
    effects = [effect("tea", at, (0.0, it), limit=0.2) for at, it in enumerate(changes) if it]
    [tea] = compared(responses, effects).memories
    assert len(tea.less_on) >= 5
    assert (tea.change.low is not None, tea.verdict) == (known, "less" if known else "less on some")


def test_equal_values_say_nothing_of_how_much_others_would_vary():
    """An interval of no width would be certainty."""
    responses = [response(at, (-5.0, -4.9)) for at in range(6)]
    effects = [effect("tea", at, (2.0, 1.5)) for at in range(6)]
    found = compared(responses, effects)
    assert found.mean == Difference(pytest.approx(0.1), None, None, all_equal=True)
    [tea] = found.memories
    assert (tea.change.all_equal, tea.verdict, len(tea.less_on)) == (True, "less", 6)
    # Of a few, nothing is known, equal or not.
    assert not compared(responses[:4]).mean.all_equal


def test_conversations_of_one_mean_are_not_responses_that_are_all_equal():
    each = [response(at, (0.0, 3.0 * (at % 2)), talk=f"{at // 2}") for at in range(12)]
    assert compared(each).mean == Difference(1.5, None, None)


@pytest.mark.parametrize(("count", "known"), [(4, False), (8, True)])
def test_few_responses_have_no_interval(count, known):
    found = compared([response(at, (-5.0, -4.0 - at)) for at in range(count)])
    assert (found.mean.low is not None) == known


def test_several_conversations_are_resampled_as_a_whole():
    """Responses that all differ alike within a conversation say no more than one of them."""
    draw = random.Random(3)
    shifts = [draw.gauss(0, 1) for _ in range(8)]
    alone = compared([response(at, (0.0, shift), talk=f"{at}") for at, shift in enumerate(shifts)])
    each = [
        response(at, (0.0, shift), talk=f"{talk}")
        for talk, shift in enumerate(shifts)
        for at in range(20)
    ]
    clustered, within = (
        compared(each),
        compared([response(at, it.with_) for at, it in enumerate(each)]),
    )
    assert clustered.mean.difference == pytest.approx(within.mean.difference)
    assert clustered.mean.low == pytest.approx(alone.mean.low)
    assert within.mean.high - within.mean.low < 0.5 * (clustered.mean.high - clustered.mean.low)


def test_few_conversations_have_no_interval_however_many_responses_they_have():
    found = compared([response(at, (0.0, at), talk=f"{at % 4}") for at in range(40)])
    assert found.mean.low is None


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says():
    draw, inside = random.Random(1), 0
    for _ in range(100):
        found = compared([response(at, (0.0, draw.gauss(0.5, 1))) for at in range(12)])
        inside += found.mean.low <= 0.5 <= found.mean.high
    assert 89 <= inside <= 100


def test_without_a_response_there_is_no_mean():
    found = compared([])
    assert (found.mean, found.need, found.memories) == (None, None, ())


# -- memories -------------------------------------------------------------------------------------


def test_a_memory_that_does_less_on_enough_responses_is_needed_less_with_an_interval():
    effects = [effect("k", at, (4.0 + at, 1.0)) for at in range(8)]
    [memory] = compared([response(at, (0.0, 0.0)) for at in range(8)], effects).memories
    assert memory.needs == (7.5, 1.0)
    assert memory.change.difference == pytest.approx(-6.5)
    assert memory.change.high < 0
    assert memory.verdict == "less"


def test_a_memory_that_does_more_is_needed_more():
    effects = [effect("k", at, (1.0, 3.0 + at)) for at in range(8)]
    [memory] = compared([response(at, (0.0, 0.0)) for at in range(8)], effects).memories
    assert memory.verdict == "more"


def test_a_change_on_one_response_alone_is_told_with_it_and_has_no_interval():
    effects = [effect("k", at, (20.0, 2.0) if at == 3 else (0.5, 0.5)) for at in range(8)]
    [memory] = compared([response(at, (0.0, 0.0)) for at in range(8)], effects).memories
    assert memory.verdict == "less on some"
    assert [it.entry_idx for it in memory.less_on] == [3]
    assert (memory.change.low, memory.change.high) == (None, None)


def test_changes_in_both_directions_are_told_apart():
    pairs = {1: (9.0, 1.0), 2: (1.0, 9.0)}
    effects = [effect("k", at, pairs.get(at, (0.5, 0.5))) for at in range(8)]
    [memory] = compared([response(at, (0.0, 0.0)) for at in range(8)], effects).memories
    assert memory.verdict == "less and more on some"


def test_a_memory_that_changes_within_noise_is_unchanged_and_its_interval_is_known():
    effects = [effect("k", at, (3.0, 3.0 + (-1) ** at * 0.2), limit=0.3) for at in range(8)]
    [memory] = compared([response(at, (0.0, 0.0)) for at in range(8)], effects).memories
    assert memory.verdict == "unchanged"
    assert memory.change.low < 0 < memory.change.high


def test_what_most_memories_change_by_is_no_change_of_one():
    """All effects on a response shrink a little; only the one that shrinks much counts."""
    draw = random.Random(2)
    effects = [
        effect(f"k{key}", at, (1.0, 1.0 - draw.uniform(0.1, 0.3) - 5 * (key == 0)))
        for key in range(9)
        for at in range(8)
    ]
    found = compared([response(at, (0.0, 0.0)) for at in range(8)], effects)
    assert [it.verdict for it in found.memories] == ["less", *["unchanged"] * 8]


def test_responses_before_a_memory_are_not_among_those_it_is_judged_by():
    effects = [effect("k", at, (0.0, 0.0) if at < 3 else (2.0, 1.0)) for at in range(8)]
    [memory] = compared([response(at, (0.0, 0.0)) for at in range(8)], effects).memories
    assert (memory.responses, memory.needs) == (5, (2.0, 1.0))


def test_conversations_join_as_if_they_had_been_compared_together():
    parts = [
        compared(
            [response(at, (0.0, float(talk + at)), talk=f"{talk}") for at in range(3)],
            [effect("k", at, (3.0, 1.0 + talk / 9), talk=f"{talk}") for at in range(3)],
        )
        for talk in range(6)
    ]
    whole = compared(
        [it for part in parts for it in part.responses],
        [it for part in parts for it in part.effects],
    )
    assert Comparison.joined(parts) == whole
    assert (whole.conversations, whole.memories[0].verdict) == (6, "less")
    assert whole.numbers["4"] == 5


# -- where they part ------------------------------------------------------------------------------


def test_models_part_at_the_first_token_that_one_finds_twice_as_likely():
    it = parting([-1.0, -1.0, -1.0, -9.0], [-1.5, -1.0 - math.log(2), -1.0, -1.0])
    assert (it.token, it.logprobs) == (1, (-1.0, -1.0 - math.log(2)))


def test_models_that_differ_by_less_do_not_part():
    assert parting([-1.0, -2.0], [-1.6, -2.6]) is None
    assert parting([-1.0, -2.0], [-2.0, -2.0], least=1.5) is None
