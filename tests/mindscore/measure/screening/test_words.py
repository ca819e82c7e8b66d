"""Words in common."""

import math

import pytest

from mindhooks import Context, Node, Part, Role
from mindscore.measure.screening.words import bm25, common_words


def test_bm25_is_what_a_small_example_gives_by_hand():
    documents = {"a": ["tea", "tea", "cup"], "b": ["cup"], "c": ["dog", "cat"]}
    found = bm25(documents, {"q": ["tea", "cup", "cup", "sun"]})
    # Lengths 3, 1 and 2, the average being 2; tea in one of three documents, cup in two.
    tea, cup = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    long, short = 1.2 * (0.25 + 0.75 * 3 / 2), 1.2 * (0.25 + 0.75 * 1 / 2)
    a = tea * 2 * 2.2 / (2 + long) + cup * 2.2 / (1 + long)
    assert found["a"]["q"] == pytest.approx(a)
    assert found["b"]["q"] == pytest.approx(cup * 2.2 / (1 + short))
    assert found["c"] == {}


def test_a_word_that_most_of_many_documents_have_does_not_count():
    documents = {f"{n}": ["the", *(["tea"] if n < 3 else [])] for n in range(200)}
    found = bm25(documents, {"q": ["the", "tea"]})
    assert [key for key, its in found.items() if its] == ["0", "1", "2"]


def talk(*, memory="", asked="", said="", ids=((1,), (2,))):
    one, two = ids
    return Context(
        (),
        (
            Node("i0", Role.MEMORY, memory, one, memory_key="k"),
            Node("i1", Role.MEMORY, "nothing", two, memory_key="other"),
        ),
        (
            Node("c0", Role.USER, asked, (5, 6)),
            Node("c1", Role.ASSISTANT, said, (7, 1, 8), (1, 3)),
        ),
    )


@pytest.mark.parametrize("place", ["asked", "said"])
def test_words_of_the_question_count_as_those_of_the_response(place):
    context = talk(memory="Where TEA grows", **{place: "no tea"})
    found = common_words(context, range(2), {"k": [1], "other": [2]})
    assert found["k"]["c1"] > 0
    assert found["other"] == {}


def test_token_ids_stand_in_for_texts_that_have_nothing_in_common():
    found = common_words(talk(), range(2), {"k": [1], "other": [2]})
    assert found["k"]["c1"] > 0
    assert found["other"] == {}


def test_memories_that_are_printed_in_a_question_are_none_of_its_words():
    parts = (Part("where is "), Part("the tea grows", "k"), Part("the dog sleeps", "other"))
    context = Context(
        (),
        (),
        (
            Node("c0", Role.USER, "where is the tea grows the dog sleeps", (1,), parts=parts),
            Node("c1", Role.ASSISTANT, "where the dog is", (7, 8), (0, 2)),
        ),
    )
    found = common_words(context, range(2), {"k": [1], "other": [2]})
    assert found["other"]["c1"] > found["k"]["c1"]
