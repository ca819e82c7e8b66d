"""The ledger's arithmetic: what counts as internalised, and what as noise."""

import pytest

from mindscore.measure.internalisation import (
    LedgerEntry,
    MemoryVersion,
    Round,
    accounts,
    beyond_lift,
    depends,
    drift,
)

TEA, DOG = MemoryVersion("tea", "t1"), MemoryVersion("dog", "d1")
QUIET = ((-10.0, 4), (-20.0, 16))


def entry(with_, without, reworded=None, *, memory=TEA, stamp=1, tokens=4):
    return LedgerEntry(memory, stamp, f"h{stamp}", tokens, with_, without, reworded or {})


def round_(name, *entries, unrelated=QUIET):
    return Round(name, "", float(len(name)), unrelated, entries)


def last(*rounds):
    """The standing in the last of ``rounds`` of the only memory."""
    [account] = accounts(rounds)
    return account.standings[-1]


@pytest.mark.parametrize(
    ("signed", "hold", "noise", "found"),
    [
        (1.0, None, None, True),
        (0.9, None, None, False),
        (-3.0, None, None, False),
        # Another memory says the same.
        (0.0, 5.0, None, True),
        (3.0, None, 1.0, True),
        (3.0, None, 2.0, False),
    ],
)
def test_an_answer_depends_on_what_it_loses_or_what_holds_it_alone(signed, hold, noise, found):
    assert depends(signed, hold, noise) is found


@pytest.mark.parametrize(
    ("holds", "beyond"),
    [
        ([], []),
        ([None, None], [None, None]),
        # Too few to tell most: those far below the largest are unrelated.
        ([12.0, 3.0, None], [9.0, 0.0, None]),
        ([3.0, 12.0, 3.0, 3.0, 3.0, 4.0], [0.0, 9.0, 0.0, 0.0, 0.0, 1.0]),
        # Within the spread of the unrelated ones, nothing is known.
        ([1.0, 2.0, 3.0, 4.0, 5.0], [None] * 5),
    ],
)
def test_what_a_memory_does_alone_counts_beyond_what_unrelated_ones_do(holds, beyond):
    assert beyond_lift(holds) == beyond


@pytest.mark.parametrize(
    ("without", "reworded", "state"),
    [
        (-20.0, -21.0, "no"),
        (-15.1, -11.0, "no"),
        (-15.0, -20.9, "as asked"),
        (-15.0, -16.0, "internalised"),
        (-8.0, -9.0, "internalised"),
        (-30.0, -30.0, "no"),
    ],
)
def test_half_of_what_the_memories_added_is_internalised_in_every_frame(without, reworded, state):
    first = round_("base", entry(-10.0, -20.0, {"f": -21.0}))
    found = last(first, round_("one", entry(-9.0, without, {"f": reworded})))
    assert found.state == state
    assert found.share == pytest.approx((without + 20) / 10)
    assert found.reworded_share == pytest.approx((reworded + 21) / 10)


def test_an_answer_that_was_not_asked_in_other_frames_is_at_most_known_as_asked():
    found = last(round_("base", entry(-10.0, -20.0)), round_("one", entry(-10.0, -10.0)))
    assert (found.state, found.reworded, found.reworded_share) == ("as asked", None, None)


def test_a_rise_as_of_unrelated_answers_is_noise():
    """Both unrelated answers change by 3 nats for each root of a token."""
    first = round_("base", entry(-10.0, -20.0, {"f": -20.0}))
    moved = round_("one", entry(-9.0, -9.0, {"f": -9.0}), unrelated=((-16.0, 4), (-8.0, 16)))
    assert drift(first, moved) == pytest.approx(3.0)
    found = last(first, moved)
    # Of an answer of 4 tokens; the rise is 11.
    assert found.noise == pytest.approx(6.0)
    assert found.state == "no"
    calm = round_("one", entry(-9.0, -9.0, {"f": -9.0}), unrelated=((-15.0, 4), (-10.0, 16)))
    assert last(first, calm).state == "internalised"


def test_the_mean_of_several_answers_is_less_noisy():
    both = [entry(-10.0, -20.0, stamp=it) for it in (1, 2)]
    after = [entry(-10.0, -10.0, stamp=it) for it in (1, 2)]
    moved = ((-16.0, 4), (-8.0, 16))
    found = last(round_("base", *both), round_("one", *after, unrelated=moved))
    assert (found.responses, found.noise) == (2, pytest.approx(6.0 / 2**0.5))


def test_rounds_are_compared_over_what_both_have():
    """The second answer, and the second frame, are measured in one of the rounds only."""
    first = round_(
        "base", entry(-10.0, -20.0, {"f": -22.0}), entry(-1.0, -90.0, {"f": -9.0}, stamp=2)
    )
    found = last(first, round_("one", entry(-10.0, -14.0, {"f": -16.0, "g": -1.0})))
    assert (found.responses, found.without_memories, found.reworded) == (1, -14.0, -16.0)
    assert (found.share, found.reworded_share) == pytest.approx((0.6, 0.6))


def test_a_memory_that_comes_later_begins_with_its_own_first_round():
    rounds = [
        round_("base", entry(-10.0, -20.0)),
        round_("one", entry(-10.0, -12.0), entry(-5.0, -9.0, memory=DOG, stamp=2)),
        round_("two", entry(-5.0, -6.0, memory=DOG, stamp=2)),
    ]
    dog, tea = accounts(rounds)
    assert [it and it.state for it in dog.standings] == [None, "first", "as asked"]
    assert [it and it.state for it in tea.standings] == ["first", "as asked", None]
    assert (dog.state, tea.state) == ("as asked", "as asked")
    assert dog.standings[2].share == pytest.approx(0.75)


def test_a_memory_with_another_text_is_another_one():
    changed = MemoryVersion("tea", "t2")
    found = accounts([round_("base", entry(-1.0, -9.0), entry(-2.0, -8.0, memory=changed))])
    assert [it.memory for it in found] == [TEA, changed]


def test_what_never_added_anything_cannot_be_internalised():
    found = last(round_("base", entry(-20.0, -20.0)), round_("one", entry(-5.0, -5.0)))
    assert (found.share, found.state) == (None, "no")


def test_the_loss_of_unrelated_answers_is_by_token():
    assert round_("base").unrelated_loss == pytest.approx(1.5)
    assert round_("base", unrelated=()).unrelated_loss is None
