"""``mindscore.score_memory``: section 4.3."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mindscore
from mindhooks import ScorerError
from mindscore.scorers.toy import ToyScorer


@pytest.fixture
def twice(say):
    """A memory that two responses after it are made of, and a response before it."""
    return say.talk(
        say.user(9), say.reply(1), say.memory("k", 1), say.reply(1), say.user(9), say.reply(1)
    )


async def test_it_is_the_sum_of_the_divergences_over_the_window_from_the_first_position(
    twice, naive
):
    expected = [max(0.0, signed) for _, _, signed in naive(twice).measured("k", 50)]
    assert len(expected) == 2
    assert min(expected) > 0
    found = await mindscore.score_memory(twice.context(), "k", ToyScorer())
    assert found == pytest.approx(sum(expected), abs=1e-9)


async def test_a_response_that_became_less_likely_takes_nothing_from_the_sum(say, naive):
    talk = say.talk(say.memory("k", 1), say.reply(1), say.reply(21, 21), say.user(9))
    signed = [it[2] for it in naive(talk).measured("k", 50)]
    assert signed[0] > 0 > signed[1]
    found = await mindscore.score_memory(talk.context(), "k", ToyScorer())
    assert found == pytest.approx(signed[0], abs=1e-9)


async def test_the_window_ends_with_the_response_window_th_assistant_node(twice, naive, probe):
    found = await mindscore.score_memory(twice.context(), "k", probe, response_window=1)
    [[_, _, signed]] = naive(twice).measured("k", 1)
    assert found == pytest.approx(signed, abs=1e-9)
    assert [prompt.tokens for prompt in probe.asked] == [(1, 21, 1, 7), (21, 1, 7)]


@pytest.mark.parametrize("key", ["missing", ""])
async def test_it_is_0_for_a_memory_that_is_not_there(twice, probe, key):
    assert await mindscore.score_memory(twice.context(), key, probe) == 0.0
    assert probe.asked == []


async def test_it_is_0_where_no_response_follows(say, probe):
    talk = say.talk(say.reply(1), say.memory("k", 1), say.user(2), say.silent())
    assert await mindscore.score_memory(talk.context(), "k", probe) == 0.0
    assert probe.asked == []


async def test_it_is_0_in_an_empty_conversation(say, probe):
    talk = say.talk(identity=[say.memory("k", 1)])
    assert await mindscore.score_memory(talk.context(), "k", probe) == 0.0


async def test_it_raises_when_the_scorer_fails(twice, probe):
    probe.refuses = lambda prompt: True
    with pytest.raises(ScorerError, match="the probe refuses"):
        await mindscore.score_memory(twice.context(), "k", probe)


async def test_it_raises_when_the_scorer_s_answer_is_short(twice, probe, monkeypatch):
    async def score(prompts):
        return [[] for _ in prompts]

    monkeypatch.setattr(probe, "score", score)
    with pytest.raises(ScorerError):
        await mindscore.score_memory(twice.context(), "k", probe)


@given(data=st.data(), count=st.integers(1, 4))
def test_any_memory_s_score_is_the_naive_one(talks, naive, data, count):
    talk = data.draw(talks)
    key = data.draw(st.sampled_from("abcd"))
    context = talk.context()
    found = asyncio.run(mindscore.score_memory(context, key, ToyScorer(), response_window=count))
    assert found == pytest.approx(naive(talk).score_memory(key, count), abs=1e-9)
