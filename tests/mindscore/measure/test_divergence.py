"""The divergence of one memory over one window: the first paragraph of section 4."""

import asyncio
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import RangeScore, ResponseDivergence, ScorerError, WirePrompt
from mindscore.config.settings import ServerSettings
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache
from mindscore.measure.divergence import (
    UNMEASURED_NOISE,
    check_answers,
    implausible,
    is_assumed,
    is_indistinct,
    noise_limit,
)
from mindscore.measure.leave_one_out import LeaveOneOut, NoiseFloor
from mindscore.measure.memories import responses_after_change, skip_only, whole
from mindscore.measure.retry import Retry
from mindscore.measure.usage import Usage
from mindscore.scorers.toy import ToyScorer

SMALL = 16 / 2**20


async def divergences(talk, key, scorer, window=None):
    context = talk.context()
    window = whole(context) if window is None else window
    cached = CachedScorer(scorer, Usage(), ScoreCache(), Retry(ServerSettings()))
    return await LeaveOneOut(cached, context, NoiseFloor(cached, 0)).drop(window, skip_only(key))


# -- signed and divergence ------------------------------------------------------------------------


async def test_signed_is_the_total_with_the_memory_minus_the_total_without(say):
    talk = say.talk(say.memory("k", 3), say.reply(3), system=[say.plain("system", 1, 2)])
    # With: 1 2 3 header | 3 end. Without: 1 2 header | 3 end.
    with_ = math.log((1 + SMALL) / 20) + math.log(SMALL / 21)
    without = math.log(SMALL / 19) + math.log(SMALL / 20)
    [found] = await divergences(talk, "k", ToyScorer())
    assert found.signed == pytest.approx(with_ - without, abs=1e-9)
    assert found.divergence == found.signed
    assert (found.entry_idx, found.node_id) == (1, "c1")


async def test_the_divergence_is_0_where_signed_is_negative_and_both_are_kept(say):
    talk = say.talk(say.memory("k", 9), say.reply(3), system=[say.plain("system", 3)])
    # A memory of other words makes every word of the response a little less likely.
    with_ = math.log((1 + SMALL) / 19) + math.log(SMALL / 20)
    without = math.log((1 + SMALL) / 18) + math.log(SMALL / 19)
    [found] = await divergences(talk, "k", ToyScorer())
    assert found.signed == pytest.approx(with_ - without, abs=1e-9)
    assert found.signed < 0
    assert found.divergence == 0.0


@st.composite
def some_replies_are_memories(draw, talks):
    """A conversation, and some of its assistant nodes are memories themselves."""
    talk = draw(talks)
    keys = st.none() | st.sampled_from("abcd")
    said = [
        replace(it, key=draw(keys)) if it.role == "assistant" else it for it in talk.conversation
    ]
    return replace(talk, conversation=tuple(said))


@given(data=st.data())
def test_any_memory_s_divergences_over_any_window_are_the_naive_ones(talks, naive, data):
    talk = data.draw(some_replies_are_memories(talks))
    key = data.draw(st.sampled_from("abcd"))
    start = data.draw(st.integers(0, len(talk.conversation)))
    window = range(start, data.draw(st.integers(start, len(talk.conversation))))
    found = asyncio.run(divergences(talk, key, ToyScorer(), window))
    expected = naive(talk).row(window, {key})
    assert [(it.entry_idx, it.node_id) for it in found] == [it[:2] for it in expected]
    assert [it.signed for it in found] == pytest.approx([it[2] for it in expected], abs=1e-9)
    assert [it.divergence for it in found] == [max(0.0, it.signed) for it in found]


# -- what is asked for ----------------------------------------------------------------------------


async def test_a_response_before_the_first_removed_token_has_0_for_both_and_is_not_asked_for(
    say, probe
):
    talk = say.talk(
        say.user(1), say.reply(2), say.memory("k", 3), say.reply(3), say.memory("k", 3), say.user(4)
    )
    found = await divergences(talk, "k", probe)
    assert found[0] == ResponseDivergence(1, "c1", 0.0, 0.0)
    assert [prompt.node_ids for prompt in probe.asked] == [("c3",), ("c3",)]


async def test_a_memory_that_no_response_follows_costs_no_call(say, probe):
    talk = say.talk(say.user(1), say.reply(2), say.memory("k", 3))
    found = await divergences(talk, "k", probe)
    assert found == (ResponseDivergence(1, "c1", 0.0, 0.0),)
    assert probe.asked == []


async def test_an_image_that_goes_leaves_the_responses_before_it_alone(say, probe):
    talk = say.talk(
        say.user(1),
        say.reply(2),
        say.memory("k", 3, images=("cat.png",)),
        say.user(4),
        say.reply(5),
    )
    found = await divergences(talk, "k", probe)
    assert found[0] == ResponseDivergence(1, "c1", 0.0, 0.0)
    assert [prompt.node_ids for prompt in probe.asked] == [("c4",), ("c4",)]


async def test_the_responses_after_an_image_that_goes_are_asked_for_even_without_a_token_less(
    say, probe
):
    talk = say.talk(say.user(1), say.memory("k", images=("cat.png",)), say.reply(5))
    await divergences(talk, "k", probe)
    assert [prompt.node_ids for prompt in probe.asked] == [("c2",), ("c2",)]
    assert [len(prompt.images) for prompt in probe.asked] == [1, 0]


async def test_with_and_without_are_asked_of_the_same_scorer_for_the_same_responses(say, probe):
    talk = say.talk(say.user(1), say.memory("k", 3), say.reply(4), say.user(5), say.reply(6))
    await divergences(talk, "k", probe)
    with_, without = probe.asked
    assert with_.node_ids == without.node_ids == ("c2", "c4")
    for prompt, length in ((with_, 1 + 1 + 4 + 1 + 3), (without, 1 + 4 + 1 + 3)):
        assert len(prompt.tokens) == length
        assert [prompt.tokens[start:end] for start, end in prompt.ranges] == [(4, 7), (6, 7)]


async def test_a_response_that_is_itself_the_memory_has_no_divergence_rather_than_0(say):
    # It is not there to be scored in the prompt without: a value never measured is never 0.
    talk = say.talk(say.user(1), say.reply(2, key="k"), say.user(3), say.reply(2))
    found = await divergences(talk, "k", ToyScorer())
    assert [it.node_id for it in found] == ["c3"]


async def test_a_memory_whose_key_is_empty_is_one_like_any_other(say, naive):
    talk = say.talk(say.prints("user", ([1], ""), ([2], None)), say.reply(1))
    [found] = await divergences(talk, "", ToyScorer())
    [(_, _, signed)] = naive(talk).row(range(2), {""})
    assert found.signed == pytest.approx(signed, abs=1e-9)


@given(data=st.data())
def test_whatever_goes_only_the_responses_after_it_are_asked_for(talks, naive, data):
    talk = data.draw(some_replies_are_memories(talks))
    context, key = talk.context(), data.draw(st.sampled_from("abcd"))
    after = naive(talk).after_removal(range(len(talk.conversation)), {key})
    assert responses_after_change(context, whole(context), skip_only(key)) == set(after)


# -- answers that are not to be trusted -----------------------------------------------------------

PROMPTS = [
    WirePrompt((1, 2, 3), (), ((1, 2), (2, 3)), ("first", "second")),
    WirePrompt((1, 2), (), ((1, 2),), ("third",)),
]


def test_an_answer_with_one_plausible_value_for_each_range_is_taken():
    # 1e-6 above 0 is rounding.
    check_answers("m", PROMPTS, [[RangeScore(-1.0), RangeScore(0.0)], [RangeScore(1e-6)]])


@pytest.mark.parametrize(
    "answers",
    [
        [[RangeScore(-1.0), RangeScore(-1.0)]],
        [[RangeScore(-1.0)], [RangeScore(-1.0)]],
        [[RangeScore(-1.0), RangeScore(-1.0)], []],
        [[RangeScore(-1.0), RangeScore(-1.0)], [RangeScore(-1.0)], []],
    ],
)
def test_an_answer_with_too_few_or_too_many_values_is_an_error(answers):
    with pytest.raises(ScorerError, match=r"the-model.*asked for"):
        check_answers("the-model", PROMPTS, answers)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.5])
def test_a_value_that_is_no_log_probability_is_an_error_that_names_the_response(value):
    answers = [[RangeScore(-1.0), RangeScore(value)], [RangeScore(-1.0)]]
    with pytest.raises(ScorerError, match=r"the-model.*second"):
        check_answers("the-model", PROMPTS, answers)


@pytest.mark.parametrize(("value", "hint"), [(math.nan, "model"), (0.5, "server"), (-2.0, None)])
def test_what_is_wrong_with_a_value_says_where_to_look(value, hint):
    found = implausible(value)
    assert found is None if hint is None else hint in found


async def test_a_bad_answer_is_no_divergence(say, probe, monkeypatch):
    async def score(prompts):
        return [[RangeScore(math.nan)] for _ in prompts]

    monkeypatch.setattr(probe, "score", score)
    talk = say.talk(say.memory("k", 3), say.reply(3))
    with pytest.raises(ScorerError, match="c1"):
        await divergences(talk, "k", probe)


@pytest.mark.parametrize(
    ("noise", "spread", "limit", "assumed"),
    [
        (None, 0.0, UNMEASURED_NOISE, True),
        (0.0, 0.0, 0.0, False),
        (0.5, 0.0, 0.5, False),
        (None, 0.2, 0.2, False),
        (0.5, 0.2, 0.5, False),
        (0.1, 0.2, 0.2, False),
    ],
)
def test_an_effect_within_noise_or_spread_or_what_is_assumed_is_indistinct(
    noise, spread, limit, assumed
):
    assert noise_limit(noise, spread) == limit
    assert is_assumed(noise, spread) is assumed
    for sign in (1, -1):
        within = ResponseDivergence(1, "r", 0.0, sign * limit, noise)
        beyond = ResponseDivergence(1, "r", 0.0, sign * (limit + 0.01), noise)
        assert is_indistinct(within, {"r": spread}) is (limit > 0)
        assert not is_indistinct(beyond, {"r": spread})
    assert not is_indistinct(ResponseDivergence(1, "r", 0.0, 0.0, noise), {"r": spread})
