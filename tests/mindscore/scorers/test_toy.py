"""The toy scorer: by hand, (c + 16/2**20) / (n + 16) for a token seen c times among n."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import ScorerError, WirePrompt
from mindscore.scorers.toy import VOCABULARY, ToyScorer

SMALL = 16 / 2**20


def prompt(*tokens, ranges=()):
    return WirePrompt(tokens, (), tuple(ranges), tuple(f"r{start}" for start, _ in ranges))


async def probability(before, token):
    """What the toy thinks of ``token`` after ``before``."""
    [[score]] = (
        await ToyScorer().score([prompt(*before, token, ranges=[(len(before), len(before) + 1)])])
    ).ranges
    return math.exp(score.total)


# -- probabilities --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "token", "expected"),
    [
        ((5,), 5, (1 + SMALL) / 17),
        ((5,), 6, SMALL / 17),
        ((5, 6, 5, 6), 5, (2 + SMALL) / 20),
        ((5, 6, 5, 6), 7, SMALL / 20),
        ((5,) * 16, 5, (16 + SMALL) / 32),
    ],
)
async def test_a_token_is_as_likely_as_it_was_frequent_before(before, token, expected):
    assert await probability(before, token) == pytest.approx(expected, rel=1e-12)


async def test_a_range_is_the_sum_of_its_tokens_each_after_all_before_it():
    [[score]] = (await ToyScorer().score([prompt(5, 6, 6, 5, ranges=[(1, 4)])])).ranges
    values = [SMALL / 17, (1 + SMALL) / 18, (1 + SMALL) / 19]
    assert score.values == pytest.approx([math.log(it) for it in values], rel=1e-12)
    assert score.total == pytest.approx(sum(score.values), rel=1e-12)


async def test_every_range_of_every_prompt_is_answered_in_order():
    answers = (
        await ToyScorer().score(
            [prompt(5, 5, 6, ranges=[(1, 2), (2, 3)]), prompt(1, 2), prompt(6, 6, ranges=[(1, 2)])]
        )
    ).ranges
    assert [len(answer) for answer in answers] == [2, 0, 1]
    found = [math.exp(score.total) for answer in answers for score in answer]
    expected = [(1 + SMALL) / 17, SMALL / 18, (1 + SMALL) / 17]
    assert found == pytest.approx(expected, rel=1e-12)


async def test_every_token_of_every_prompt_counts_as_computed():
    result = await ToyScorer().score([prompt(1, 2, 3, ranges=[(1, 2)]), prompt(4, 5)])
    assert result.computed_tokens == 5


@pytest.mark.parametrize("before", [(5,), (5, 6, 5), (1, 2, 3, 4, 4, 4)])
async def test_the_probabilities_of_all_tokens_sum_to_1(before):
    seen = set(before)
    unseen = next(token for token in range(VOCABULARY) if token not in seen)
    total = sum([await probability(before, token) for token in seen])
    # All tokens that were not seen are equally likely; the next test holds it to that.
    total += (VOCABULARY - len(seen)) * await probability(before, unseen)
    assert total == pytest.approx(1, rel=1e-9)


async def test_all_tokens_that_were_not_seen_are_equally_likely():
    likely = {await probability((5, 6), token) for token in (0, 7, 1000, VOCABULARY - 1)}
    assert len(likely) == 1


@given(data=st.data())
def test_any_response_s_log_probability_is_the_naive_one(talks, naive, data):
    talk = data.draw(talks)
    whole = range(len(talk.conversation))
    wire = talk.context().wire_prompt(whole, lambda key: False)
    [answer] = asyncio.run(ToyScorer().score([wire])).ranges
    tokens = naive(talk).tokens(whole, set())
    expected = [naive(talk).total(tokens, id_) for id_ in wire.node_ids]
    assert {id_ for _, id_ in naive(talk).responses(whole)} <= set(wire.node_ids)
    assert [score.total for score in answer] == pytest.approx(expected, abs=1e-9)


# -- generating -----------------------------------------------------------------------------------


async def test_it_goes_on_with_the_most_frequent_token_and_of_those_the_smallest():
    said = await ToyScorer().generate(prompt(3, 9, 9, 3), max_tokens=4, stop=[])
    assert said.token_ids == (3, 3, 3, 3)
    said = await ToyScorer().generate(prompt(3, 9, 9), max_tokens=1, stop=[])
    assert said.token_ids == (9,)


async def test_it_stops_at_a_stop_token_which_is_in_the_ids_and_not_in_the_text():
    toy = ToyScorer()
    [stop] = await toy.tokenize("<|im_end|>")
    said = await toy.generate(prompt(stop), max_tokens=10, stop=[stop])
    assert (said.token_ids, said.text) == ((stop,), "")


async def test_it_stops_at_max_tokens():
    said = await ToyScorer().generate(prompt(3), max_tokens=7, stop=[4])
    assert said.token_ids == (3,) * 7


async def test_it_says_words_that_it_has_tokenised():
    toy = ToyScorer()
    ids = await toy.tokenize("echo")
    said = await toy.generate(prompt(*ids), max_tokens=2, stop=[])
    assert said.text == "echo echo"


@given(ids=st.lists(st.integers(5, 9), max_size=12), limit=st.integers(1, 6))
def test_any_prompt_goes_on_as_naively(naive, ids, limit):
    said = asyncio.run(ToyScorer().generate(prompt(*ids), max_tokens=limit, stop=[7]))
    assert said.token_ids == naive.greedy(ids, limit)


# -- tokenising -----------------------------------------------------------------------------------


async def test_a_word_always_has_the_same_id_in_every_instance():
    text = "the cat, the dog"
    first = await ToyScorer().tokenize(text)
    assert first == await ToyScorer().tokenize(text)
    the, cat, comma, the_again, dog = first
    assert the == the_again
    assert len({the, cat, comma, dog}) == 4
    assert all(0 <= it < VOCABULARY for it in first)


async def test_white_space_is_dropped_and_a_special_token_is_one_id():
    toy = ToyScorer()
    assert await toy.tokenize("a  b\n") == await toy.tokenize("a b")
    assert len(await toy.tokenize("<|im_start|>user\n")) == 2
    assert await toy.tokenize(" \n") == []


# -- options --------------------------------------------------------------------------------------


async def test_a_larger_prior_trusts_the_context_less_and_has_a_name_of_its_own():
    asked = [prompt(5, 5, ranges=[(1, 2)])]
    doubtful = ToyScorer({"scorer": "toy", "options": {"prior": 64}})
    [[score]] = (await doubtful.score(asked)).ranges
    assert math.exp(score.total) == pytest.approx((1 + 64 / VOCABULARY) / 65)
    assert (ToyScorer({}).model, doubtful.model) == ("toy", "toy, prior 64")


@pytest.mark.parametrize("prior", [0, -1, "16", True, math.inf, math.nan])
def test_a_prior_that_is_no_number_above_nought_is_refused(prior):
    with pytest.raises(ScorerError, match=r"server\.options\.prior"):
        ToyScorer({"options": {"prior": prior}})
