"""Memories that hide each other, and memories that need each other."""

import asyncio
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import MemoryScore, MindCommand, ResponseDivergence
from mindscore.measure.interactions import (
    MOST_GROUPS,
    MOST_PAIRS,
    FoundInteractions,
    Interaction,
    RedundantGroup,
    confirmed,
    find_interactions,
    need_candidates,
    redundant_candidates,
    told_once,
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
        [hide] = it.registry.stash[Interaction]
    assert (hide.keys, hide.kind, hide.node_ids) == (("a", "b", "c"), "hide", ("c1",))


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
    for found in it.registry.stash.get(Interaction, ()):
        together = {id_: nats for _, id_, nats in plain.row(range(plain.length), set(found.keys))}
        apart = [
            {id_: nats for _, id_, nats in plain.row(range(plain.length), {key})}
            for key in found.keys
        ]
        for entry in found.entries:
            its = sum(row[entry.node_id] for row in apart)
            assert entry.together == pytest.approx(together[entry.node_id], abs=1e-6)
            assert entry.apart == pytest.approx(its, abs=1e-6)
            assert entry.interaction == pytest.approx(together[entry.node_id] - its, abs=1e-6)
            assert (entry.interaction > 0) == (found.kind == "hide")
    most = 2 * (len(it.heard.scores) + 1) + MOST_GROUPS + MOST_PAIRS
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
    group, nothing = pair("a", "b", "r", "s"), {"r": 0.0, "s": 0.0}

    def left(together, noise=None):
        rows = [measured(key, nothing, None, noise) for key in "ab"]
        without = cells(together, noise)
        return confirmed(group, find_interactions(group.keys, group.node_ids, rows, without))

    assert left({"r": 0.9, "s": -3.0}) is None
    assert left({"r": 0.9, "s": 5.0}) == pair("a", "b", "s")
    assert left({"r": 5.0}, noise=6.0) is None


def test_responses_are_in_the_order_of_the_conversation():
    nothing = dict.fromkeys(["z", "y", "x"], 0.0)
    held = dict.fromkeys(["z", "y", "x"], 5.0)
    scores = [measured(key, nothing, held) for key in "ab"]
    assert redundant_candidates(scores) == [pair("a", "b", "z", "y", "x")]


# -- memories that need each other ----------------------------------------------------------------


def found_in(scores, together, of_all=None):
    """What is named of the candidates, where ``together`` gives what removing a pair costs."""
    found = []
    for it in need_candidates(scores, of_all or {}):
        without = cells(together(it.keys))
        found += find_interactions(it.keys, it.node_ids, scores, without)
    return found


def test_of_two_memories_that_need_each_other_either_costs_what_both_do():
    scores = [measured(key, {"r": 8.0}, {"r": 0.1}) for key in "ab"]
    [need] = found_in(scores, lambda _: {"r": 8.0})
    assert (need.keys, need.kind) == (("a", "b"), "need")
    [entry] = need.entries
    assert (entry.together, entry.apart, entry.interaction) == (8.0, 16.0, -8.0)


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        # They add up, or nearly so.
        (8.0, 8.0, 16.0),
        (8.0, 8.0, 14.7),
        # One needs the other, and not the other way round.
        (8.0, 3.0, 8.0),
        # What both do is limited, and either still does most of its own without the other.
        (5.0, 5.0, 8.0),
    ],
)
def test_memories_that_do_much_without_each_other_do_not_need_each_other(one, other, together):
    scores = [measured("a", {"r": one}, None), measured("b", {"r": other}, None)]
    assert found_in(scores, lambda _: {"r": together}) == []


def test_two_that_cost_more_together_than_apart_hide_each_other_in_part():
    scores = [measured(key, {"r": 3.0}, None) for key in "ab"]
    [hide] = found_in(scores, lambda _: {"r": 12.0})
    assert (hide.kind, hide.entries[0].interaction) == ("hide", 6.0)


@pytest.mark.parametrize(
    ("hold", "of_all", "counts"),
    [
        # Alone, either does little.
        (0.5, None, True),
        # Alone, either does as much: so they add up, unless there is too little for that.
        (8.0, None, False),
        (8.0, 16.0, False),
        (8.0, 14.7, False),
        (8.0, 9.0, True),
        # Not measured alone: what each costs has to do.
        (None, None, True),
    ],
)
def test_pairs_that_hold_or_the_bare_total_speak_against_are_not_asked_about(hold, of_all, counts):
    alone = None if hold is None else {"r": hold}
    scores = [measured(key, {"r": 8.0}, alone) for key in "ab"]
    known = {} if of_all is None else {"r": of_all}
    assert [it.keys for it in need_candidates(scores, known)] == [("a", "b")] * counts


@pytest.mark.parametrize(
    ("drop", "noise", "counts"),
    [(2.0, None, True), (1.9, None, False), (6.0, 1.0, True), (5.9, 1.0, False)],
)
def test_both_drops_have_to_be_clear_of_noise(drop, noise, counts):
    scores = [measured(key, {"r": drop}, None, noise) for key in "ab"]
    scores.append(measured("c", {"r": 9.0}, None, noise))
    assert (("a", "b") in [it.keys for it in need_candidates(scores, {})]) == counts


def test_what_most_memories_do_to_a_response_is_no_large_drop():
    rows = [measured(f"m{number}", {"r": 4.0}, None) for number in range(9)]
    assert need_candidates(rows, {}) == []


def test_pairs_come_with_the_most_at_stake_first_and_only_as_many_as_the_plan_says():
    scores = [measured(f"m{n}", {"r": 5.0 + n, "s": 0.0}, None) for n in range(4)]
    scores.append(measured("x", {"r": 0.0, "s": 60.0}, None))
    scores.append(measured("y", {"r": 0.0, "s": 50.0}, None))
    found = need_candidates(scores, {})
    assert [it.keys for it in found[:2]] == [("x", "y"), ("m2", "m3")]
    ids = [f"r{number}" for number in range(30)]
    many = [measured(f"{id_}-{copy}", {id_: 9.0}, None) for id_ in ids for copy in (1, 2)]
    assert len(need_candidates(many, {})) == MOST_PAIRS


@given(
    drops=st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=2, max_size=5),
    together=st.lists(st.floats(-60, 60), min_size=3, max_size=3),
)
def test_an_interaction_is_what_both_cost_together_less_what_they_cost_apart(drops, together):
    ids = ["r", "s", "t"]
    keys = tuple(f"m{number}" for number in range(len(drops)))
    scores = [
        measured(key, dict(zip(ids, row, strict=True)), None)
        for key, row in zip(keys, drops, strict=True)
    ]
    without = cells(dict(zip(ids, together, strict=True)))
    found = list(find_interactions(keys, ids, scores, without))
    for it in found:
        for entry in it.entries:
            at = ids.index(entry.node_id)
            apart = sum(row[at] for row in drops)
            assert entry.entry_idx == at
            assert (entry.together, entry.apart) == (together[at], pytest.approx(apart))
            assert entry.interaction == pytest.approx(together[at] - apart)
            assert abs(entry.interaction) > math.sqrt(2)
    named = [id_ for it in found for id_ in it.node_ids]
    assert len(named) == len(set(named))


def test_a_pair_is_named_only_for_the_responses_that_were_pointed_at():
    scores = [measured(key, {"r": 8.0, "s": 8.0}, None) for key in "ab"]
    without = cells({"r": 8.0, "s": 8.0})
    [it] = find_interactions(("a", "b"), {"s"}, scores, without)
    assert it.node_ids == ("s",)


def test_what_is_told_of_a_group_is_not_told_again():
    scores = [measured(key, {"r": 0.0}, None) for key in "ab"]
    [hide] = find_interactions(("a", "b"), {"r"}, scores, cells({"r": 9.0}))
    group = pair("a", "b", "r")
    assert told_once([group], [hide], {"r": 3}) == [(("a", "b"), group.relation, [3])]
    assert told_once([], [hide], {"r": 3}) == [(("a", "b"), hide.relation, [3])]


def test_of_what_was_found_that_is_left_whose_texts_and_responses_are():
    scores = [measured(key, {"r": 8.0, "s": 8.0}, None) for key in "abc"]
    without = cells({"r": 8.0, "s": 8.0})
    [one] = find_interactions(("a", "b"), {"r", "s"}, scores, without)
    [other] = find_interactions(("a", "c"), {"r", "s"}, scores, without)
    groups = [pair("a", "b", "r", "s"), pair("b", "c", "r")]
    hashes = {key: f"#{key}" for key in "abcd"}
    found = FoundInteractions.of(groups, [one, other], hashes)
    assert found.text_hashes == {key: f"#{key}" for key in "abc"}
    assert found.as_of_now(hashes, {"r": 0, "s": 1}) == found
    # c has another text, r is gone, and another turn came before s.
    now = found.as_of_now({**hashes, "c": "other"}, {"s": 5})
    assert now.redundant == (pair("a", "b", "s"),)
    [left] = now.interactions
    assert left.keys == ("a", "b")
    assert [(it.node_id, it.entry_idx) for it in left.entries] == [("s", 5)]
    # A run that measures a and b says nothing of c.
    none = FoundInteractions((), (), {})
    left = none.beside(found, {"a", "b"}, ())
    assert (left.redundant, left.interactions) == ((groups[1],), (other,))
    assert left.text_hashes == {key: f"#{key}" for key in "abc"}
    assert none.beside(found, {"a", "b", "c"}, ()) == none
    # Nobody knows of what was not removed together.
    kept = none.beside(found, {"a", "b", "c"}, [("a", "b")])
    assert [it.keys for it in (*kept.redundant, *kept.interactions)] == [("a", "b")] * 2
    assert found.as_of_now({}, {"r": 0}) == replace(found, redundant=(), interactions=())


# -- chance ---------------------------------------------------------------------------------------


def draw_matrix(seed, memories, size, worth, *, repeated):
    """Rows of 10 responses with errors of ``size`` nats in every total, and what pairs cost.

    ``worth`` gives a response's nats by the memories that are there. ``repeated``: the noise is
    measured by one repetition.
    """
    chance = random.Random(seed)
    keys, ids = [f"m{number}" for number in range(memories)], [f"r{number}" for number in range(10)]

    def totals(present):
        return {id_: worth(present, id_) + chance.gauss(0, size) for id_ in ids}

    full, bare = totals(frozenset(keys)), totals(frozenset())
    again = totals(frozenset(keys))
    noise = {id_: abs(full[id_] - again[id_]) for id_ in ids} if repeated else {}

    def row(with_, without):
        nats = {id_: with_[id_] - without[id_] for id_ in ids}
        return tuple(
            ResponseDivergence(number, id_, max(0.0, nats[id_]), nats[id_], noise.get(id_))
            for number, id_ in enumerate(ids)
        )

    def drop(gone):
        return row(full, totals(frozenset(keys) - gone))

    scores = [
        MemoryScore(key, 0.0, "full", drop({key}), row(totals(frozenset({key})), bare))
        for key in keys
    ]
    return scores, drop, {id_: full[id_] - bare[id_] for id_ in ids}


def named(scores, drop, of_all):
    found = []
    for it in (*redundant_candidates(scores), *need_candidates(scores, of_all)):
        found += find_interactions(it.keys, it.node_ids, scores, drop(set(it.keys)))
    return found


def nothing(_present, _node_id):
    return -100.0


def additive(present, node_id):
    """Every third memory helps every response, each as if the others were not there."""
    return -100.0 + sum(6.0 for key in present if int(key[1:]) % 3 == 0 and node_id != "r9")


@pytest.mark.parametrize("memories", [3, 12, 30])
@pytest.mark.parametrize("worth", [nothing, additive])
@pytest.mark.parametrize(("size", "repeated"), [(0.3, False), (0.3, True), (1.0, True)])
def test_chance_alone_names_hardly_any(memories, worth, size, repeated):
    names = 0
    for seed in range(100):
        names += bool(named(*draw_matrix(seed, memories, size, worth, repeated=repeated)))
    assert names <= 5


def test_what_is_there_is_named_in_spite_of_noise():
    def split(present, node_id):
        return -100.0 + 12.0 * (node_id == "r1" and {"m0", "m1"} <= present)

    for seed in range(20):
        [it] = named(*draw_matrix(seed, 12, 0.5, split, repeated=True))
        assert (it.keys, it.kind, it.node_ids) == (("m0", "m1"), "need", ("r1",))
