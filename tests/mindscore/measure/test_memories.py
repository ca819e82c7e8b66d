"""Which memories there are, where, and which responses judge them: 4.1.1, 4.1.3 and 4.1.4."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindscore.measure.memories import (
    Memory,
    assistant_indexes,
    find_memories,
    past_cutoff,
    response_window,
    responses,
    whole,
)

CUTOFFS = st.sampled_from([0.0, 0.25, 0.5, 0.6, 0.75, 1.0])


# -- candidates and their positions ---------------------------------------------------------------


def test_nodes_and_parts_bear_memories_alike(say):
    talk = say.talk(say.memory("whole", 1), say.prints("user", ([2], None), ([3], "part")))
    assert find_memories(talk.context()) == [Memory("whole", 0), Memory("part", 1)]


def test_memories_in_system_and_identity_count_as_position_0(say):
    talk = say.talk(
        say.user(1),
        say.memory("c", 2),
        system=[say.plain("system", 3), say.prints("system", ([4], "s"))],
        identity=[say.plain("system", 5), say.memory("i", 6)],
    )
    assert find_memories(talk.context()) == [Memory("s", 0), Memory("i", 0), Memory("c", 1)]


def test_a_memory_that_appears_again_keeps_its_first_position(say):
    talk = say.talk(
        say.user(1),
        say.prints("user", ([2], "k"), ([3], "k")),
        say.memory("k", 4),
        say.memory("i", 5),
        identity=[say.memory("i", 6)],
    )
    assert find_memories(talk.context()) == [Memory("i", 0), Memory("k", 1)]


@given(data=st.data())
def test_every_distinct_key_of_any_conversation_is_found_at_its_first_position(talks, naive, data):
    talk = data.draw(talks)
    found = find_memories(talk.context())
    assert {memory.key: memory.position for memory in found} == naive(talk).positions()
    assert len(found) == len(naive(talk).positions())


# -- responses ------------------------------------------------------------------------------------


def test_an_assistant_node_with_an_empty_body_is_no_response(say):
    context = say.talk(say.silent(), say.reply(1), say.user(2)).context()
    assert responses(context, whole(context)) == {"c1": 1}
    assert assistant_indexes(context, whole(context)) == [0, 1]


# -- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "count", "window"),
    [
        (0, 1, range(2)),
        (0, 2, range(4)),
        (1, 1, range(1, 2)),
        (2, 1, range(2, 4)),
        (2, 2, range(2, 6)),
    ],
)
def test_a_window_goes_up_to_and_including_the_nth_assistant_node(say, position, count, window):
    talk = say.talk(
        say.user(1), say.reply(2), say.user(3), say.reply(4), say.user(5), say.reply(6), say.user(7)
    )
    assert response_window(talk.context(), position, count) == window


def test_a_window_with_too_few_assistant_nodes_goes_to_the_end(say):
    talk = say.talk(say.user(1), say.reply(2), say.user(3), say.user(4))
    assert response_window(talk.context(), 0, 2) == range(4)
    assert response_window(talk.context(), 2, 1) == range(2, 4)


def test_an_assistant_node_with_an_empty_body_counts_toward_the_window(say):
    talk = say.talk(say.user(1), say.silent(), say.reply(2), say.reply(3))
    assert response_window(talk.context(), 0, 2) == range(3)


@given(data=st.data(), count=st.integers(1, 4))
def test_any_window_is_the_naive_one(talks, naive, data, count):
    talk = data.draw(talks)
    position = data.draw(st.integers(0, len(talk.conversation)))
    found = response_window(talk.context(), position, count)
    assert list(found) == naive(talk).window(position, count)


# -- past the cutoff ------------------------------------------------------------------------------


def test_exactly_the_cutoff_is_not_past_it_and_one_token_more_is(say):
    def late(first, rest):
        talk = say.talk(say.memory("k", *[1] * first), say.user(*[2] * rest))
        return past_cutoff(talk.context(), [Memory("k", 0)], 0.6)

    assert late(6, 4) == set()
    assert late(7, 4) == {"k"}


def test_a_memory_at_position_0_is_past_the_cutoff_by_the_first_node_s_own_tokens(say):
    def late(first, rest):
        identity = [say.memory("k", 9, 9, 9, 9)]
        talk = say.talk(say.user(*[1] * first), say.reply(*[2] * rest), identity=identity)
        return past_cutoff(talk.context(), find_memories(talk.context()), 0.6)

    assert late(6, 1) == set()
    assert late(7, 1) == {"k"}


def test_nothing_is_past_the_cutoff_of_an_empty_conversation(say):
    talk = say.talk(identity=[say.memory("k", 1)])
    assert past_cutoff(talk.context(), find_memories(talk.context()), 0.0) == set()


@given(data=st.data(), cutoff=CUTOFFS)
def test_the_memories_past_any_cutoff_are_the_naive_ones(talks, naive, data, cutoff):
    talk = data.draw(talks)
    late = past_cutoff(talk.context(), find_memories(talk.context()), cutoff)
    assert late == {
        key
        for key, position in naive(talk).positions().items()
        if talk.conversation and naive(talk).is_past_cutoff(position, cutoff)
    }


@given(st.integers(0, 100), st.integers(1, 400), st.integers(1, 400))
def test_a_cutoff_is_taken_as_it_is_written(percent, before, after):
    from fractions import Fraction

    from mindhooks import Context, Node

    def node(name, length, key=None):
        return Node(name, "user", "", (1,) * length, (0, 0), memory_key=key)

    context = Context((), (), (node("m", before, "k"), node("u", after)))
    late = past_cutoff(context, [Memory("k", 0)], float(f"{percent / 100:.2f}"))
    assert bool(late) == (Fraction(before, before + after) > Fraction(percent, 100))
