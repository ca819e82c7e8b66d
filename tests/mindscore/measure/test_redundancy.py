"""Memories that hide each other."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import MemoryScore, MindCommand, ResponseDivergence
from mindscore.measure.divergence import (
    MOST_GROUPS,
    RedundantGroup,
    confirmed,
    redundant_candidates,
)

FULL = MindCommand.SCORE_FULL
PLUGINS = {"settings": {"memory-scoring": {"hold": True}}}


def cells(values, noise=None):
    """One cell for each response that ``values`` names: ``{"r1": signed}``."""
    return tuple(
        ResponseDivergence(number, node_id, max(0.0, signed), signed, noise)
        for number, (node_id, signed) in enumerate(values.items())
    )


def measured(key, drop, hold, noise=None):
    """A row of the matrix, with what the memory does alone."""
    rows = cells(drop, noise), hold if hold is None else cells(hold, noise)
    return MemoryScore(key, max([0.0, *drop.values()]), "full", *rows)


def pair(one, other, *node_ids):
    return RedundantGroup((one, other), node_ids)


# -- through the flow -----------------------------------------------------------------------------


async def test_two_copies_of_a_memory_are_a_pair_and_a_unique_one_is_in_none(say, host):
    talk = say.talk(
        say.user(9),
        say.reply(1),
        say.user(9),
        say.reply(2),
        identity=[say.memory("one", 1), say.memory("own", 2), say.memory("two", 1)],
    )
    async with host(talk, plugins=PLUGINS) as it:
        await it.run(FULL)
    scores = {score.key: score for score in it.heard.scores}
    # Either alone does much to the first response, and neither is missed.
    assert min(scores[key].hold[0].signed for key in ("one", "two")) > 10
    assert max(scores[key].divergences[0].signed for key in ("one", "two")) < 1
    ordered = [scores[key] for key in ("one", "own", "two")]
    assert redundant_candidates(ordered) == [pair("one", "two", "c1")]
    assert scores["own"].divergences[1].signed > 10


async def test_without_a_copy_there_is_no_pair(say, host):
    talk = say.talk(
        say.user(9), say.reply(1, 2), identity=[say.memory("one", 1), say.memory("own", 2)]
    )
    async with host(talk, plugins=PLUGINS) as it:
        await it.run(FULL)
    assert min(score.hold[0].signed for score in it.heard.scores) > 10
    assert redundant_candidates(it.heard.scores) == []


async def test_three_copies_are_one_group(say, host):
    memories = [say.memory(key, 1) for key in "abc"]
    talk = say.talk(say.user(9), say.reply(1), identity=memories)
    async with host(talk, plugins=PLUGINS) as it:
        await it.run(FULL)
        assert it.registry.stash[RedundantGroup] == (RedundantGroup(("a", "b", "c"), ("c1",)),)
        assert it.state.memory_last_run.calls <= 2 * (3 + 1) + 1


@given(data=st.data())
def test_a_group_that_is_named_is_missed_once_it_is_removed_whole(host, talks, naive, data):
    talk = data.draw(talks)
    plain = naive(talk)

    async def go():
        async with host(talk, plugins=PLUGINS) as it:
            await it.run(FULL)
            return it

    it = asyncio.run(go())
    for group in it.registry.stash.get(RedundantGroup, ()):
        row = {id_: signed for _, id_, signed in plain.row(range(plain.length), set(group.keys))}
        for key in group.keys:
            alone = {id_: signed for _, id_, signed in plain.row(range(plain.length), {key})}
            assert all(abs(alone[id_]) < row[id_] for id_ in group.node_ids)
        assert all(row[id_] >= 1.0 for id_ in group.node_ids)
    most = 2 * (len(it.heard.scores) + 1) + MOST_GROUPS
    assert it.state.memory_last_run.calls <= most


# -- what counts ----------------------------------------------------------------------------------


def two(drop, hold, noise=None):
    """The pairs of two memories of which each does the same to one response."""
    rows = {"r": drop}, {"r": hold}
    return redundant_candidates([measured("a", *rows, noise), measured("b", *rows, noise)])


@pytest.mark.parametrize(
    ("hold", "counts"),
    [(1.0, True), (math.nextafter(1.0, 0), False), (0.0, False), (-0.5, False), (-5.0, False)],
)
def test_a_hold_counts_from_one_nat_on_and_never_below_0(hold, counts):
    assert two(0.0, hold) == ([pair("a", "b", "r")] if counts else [])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("share", "counts"), [(0.0, True), (0.1, True), (0.1001, False)])
def test_a_drop_counts_as_nothing_up_to_a_tenth_of_the_hold(sign, share, counts):
    assert two(sign * share * 8.0, 8.0) == ([pair("a", "b", "r")] if counts else [])


@pytest.mark.parametrize(
    ("largest", "counts"), [(9.0, True), (10.0, True), (10.001, False), (-50.0, True)]
)
def test_a_hold_counts_from_half_of_the_response_s_largest_on(largest, counts):
    scores = [measured(key, {"r": 0.0}, {"r": 5.0}) for key in "ab"]
    scores.append(measured("c", {"r": 100.0}, {"r": largest}))
    assert redundant_candidates(scores) == ([pair("a", "b", "r")] if counts else [])


def test_the_largest_hold_is_each_response_s_own():
    nothing = {"r": 0.0, "s": 0.0}
    scores = [measured(key, nothing, {"r": 5.0, "s": 5.0}) for key in "ab"]
    scores.append(measured("c", nothing, {"r": 50.0, "s": 0.0}))
    assert redundant_candidates(scores) == [pair("a", "b", "s")]


def test_the_largest_hold_of_a_memory_whose_drop_is_not_known_counts_too():
    scores = [measured(key, {"r": 0.0}, {"r": 5.0}) for key in "ab"]
    scores.append(measured("c", {}, {"r": 50.0}))
    assert redundant_candidates(scores) == []


def test_both_have_to_be_hidden():
    hidden, missed = measured("a", {"r": 0.0}, {"r": 5.0}), measured("b", {"r": 4.0}, {"r": 5.0})
    useless = measured("c", {"r": 0.0}, {"r": 0.5})
    assert redundant_candidates([hidden, missed, useless]) == []


def test_hidden_by_different_responses_is_no_pair():
    one = measured("a", {"r": 0.0, "s": 0.0}, {"r": 5.0, "s": 0.0})
    other = measured("b", {"r": 0.0, "s": 0.0}, {"r": 0.0, "s": 5.0})
    assert redundant_candidates([one, other]) == []


@pytest.mark.parametrize(
    ("drop", "hold", "noise", "counts"),
    [
        # A drop that the noise is as large as is none.
        (2.0, 5.0, 2.0, True),
        (-2.0, 5.0, 2.0, True),
        (2.0, 5.0, 1.9, False),
        # A tenth of the hold is none however little noise there is.
        (0.5, 5.0, 0.0, True),
        (0.5, 5.0, 0.1, True),
        # The noise makes no hold larger.
        (0.0, 0.9, 5.0, False),
    ],
)
def test_a_drop_within_the_noise_counts_as_nothing(drop, hold, noise, counts):
    assert two(drop, hold, noise) == ([pair("a", "b", "r")] if counts else [])


# -- what is missing ------------------------------------------------------------------------------


def test_memories_that_were_not_measured_are_in_no_pair():
    whole = measured("a", {"r": 0.0}, {"r": 5.0})
    no_hold = measured("b", {"r": 0.0}, None)
    assert redundant_candidates([]) == []
    assert redundant_candidates([whole]) == []
    assert redundant_candidates([whole, None, no_hold]) == []
    assert redundant_candidates([None, whole, no_hold, measured("c", {"r": 0.0}, {"r": 5.0})]) == [
        pair("a", "c", "r")
    ]


def test_a_hold_without_a_drop_is_no_pair():
    one = measured("a", {"s": 0.0}, {"r": 5.0, "s": 0.0})
    assert redundant_candidates([one, measured("b", {"r": 0.0}, {"r": 5.0})]) == []


# -- order ----------------------------------------------------------------------------------------


def test_groups_come_with_the_most_responses_first():
    hidden = {"a": ["r1"], "b": ["r1", "r2", "r3"], "c": ["r2", "r3"], "d": ["r1"]}
    nothing = dict.fromkeys(["r1", "r2", "r3"], 0.0)
    scores = [
        measured(key, nothing, {**nothing, **dict.fromkeys(ids, 5.0)})
        for key, ids in hidden.items()
    ]
    assert redundant_candidates(scores) == [
        pair("b", "c", "r2", "r3"),
        RedundantGroup(("a", "b", "d"), ("r1",)),
    ]


def test_what_any_memory_does_alone_is_no_support():
    # Alone, each makes the answer four nats likelier, give or take: none has to do with it.
    lifts = {"a": 4.2, "b": 3.9, "c": 4.0, "d": 4.3, "e": 3.8, "f": 6.0, "g": 5.8}
    scores = [measured(key, {"r": 0.0}, {"r": hold}) for key, hold in lifts.items()]
    assert redundant_candidates(scores[:5]) == []
    # Those that stand out of it do.
    assert redundant_candidates(scores) == [pair("f", "g", "r")]


def test_only_as_many_groups_are_asked_about_as_the_plan_says():
    ids = [f"r{number}" for number in range(30)]
    scores = [
        measured(f"{id_}-{copy}", dict.fromkeys(ids, 0.0), {**dict.fromkeys(ids, 0.0), id_: 9.0})
        for id_ in ids
        for copy in (1, 2)
    ]
    assert len(redundant_candidates(scores)) == MOST_GROUPS


def test_a_group_that_is_not_missed_together_is_none():
    group = pair("a", "b", "r", "s")
    assert confirmed(group, cells({"r": 0.9, "s": -3.0})) is None
    assert confirmed(group, cells({"r": 0.9, "s": 5.0})) == pair("a", "b", "s")
    assert confirmed(group, cells({"r": 5.0}, noise=6.0)) is None


def test_responses_are_in_the_order_of_the_conversation():
    nothing = dict.fromkeys(["z", "y", "x"], 0.0)
    held = dict.fromkeys(["z", "y", "x"], 5.0)
    scores = [measured(key, nothing, held) for key in "ab"]
    assert redundant_candidates(scores) == [pair("a", "b", "z", "y", "x")]
