import pytest

from benchmarks.attribution.measuring import Cost, distinct_prefixes
from benchmarks.attribution.methods import METHODS
from mindhooks import WirePrompt
from mindscore.measure.memories import skip_none


def prompt(*tokens):
    return WirePrompt(tokens, (), ((1, len(tokens)),), ("a",))


def test_no_prefix_is_counted_twice():
    assert distinct_prefixes([prompt(1, 2, 3), prompt(1, 2, 4, 5), prompt(1, 2, 3), prompt(9)]) == 6
    assert distinct_prefixes([]) == 0


async def test_a_prompt_is_scored_once_and_charged_to_each_that_asks(measured, toy):
    with measured.scorer.charged() as first:
        await METHODS["drop"](measured)
    count = len(toy.asked)
    assert count == first.calls == 1 + len(measured.keys)
    assert first.sent == sum(len(it.tokens) for it in toy.asked)
    with measured.scorer.charged() as second:
        await METHODS["drop"](measured)
    assert len(toy.asked) == count
    assert second == first
    assert first.computed < first.sent


async def test_what_is_sent_twice_is_computed_once(measured):
    with measured.scorer.charged() as cost:
        await measured.totals(skip_none)
        await measured.totals(skip_none)
    assert cost.calls == 2
    assert cost.sent == 2 * cost.computed


def test_answers_of_one_conversation_share_the_cost():
    assert Cost(4, 100, 60, 2.0).shared_by(4) == Cost(1, 25, 15, 0.5)


async def test_all_that_the_scorer_within_can_do_is_there(measured, toy):
    assert measured.scorer.takes_images is False
    assert await measured.scorer.tokenize("two words") == await toy.tokenize("two words")
    with pytest.raises(AttributeError):
        _ = measured.scorer.nothing_of_that_name
