"""Samples that begin alike are one sequence."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mindscore.training.lora.job import Packed, Sample, pack

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)
SAMPLES = st.lists(st.builds(Sample, IDS, IDS), max_size=12)


def test_the_responses_of_one_conversation_are_one_sequence():
    talk = tuple(range(100, 120))
    samples = [Sample(talk[:start], talk[start:end]) for start, end in ((15, 20), (3, 5))]
    assert pack(samples) == [Packed(talk, (2, 3, 14, 15, 16, 17, 18))]


def test_conversations_that_part_are_sequences_of_their_own():
    samples = [Sample((1, 2), (3, 4)), Sample((1, 2), (3, 5))]
    assert sorted(it.ids for it in pack(samples)) == [(1, 2, 3, 4), (1, 2, 3, 5)]


def test_a_sample_that_comes_twice_counts_twice():
    assert pack([Sample((1, 2), (3,))] * 2) == [Packed((1, 2, 3), (1, 1))]


@given(SAMPLES)
def test_each_token_is_learnt_after_just_what_stands_before_it(samples):
    wanted = Counter(
        (sample.ids[:at], sample.ids[at])
        for sample in samples
        for at in range(len(sample.context_ids), len(sample.ids))
    )
    learnt = Counter(
        (it.ids[: row + 1], it.ids[row + 1]) for it in pack(samples) for row in it.rows
    )
    assert learnt == wanted


@given(SAMPLES)
def test_no_sequence_is_how_another_begins(samples):
    sequences = [it.ids for it in pack(samples)]
    for number, one in enumerate(sequences):
        others = sequences[:number] + sequences[number + 1 :]
        assert not any(other[: len(one)] == one for other in others)
