"""The control for the place: unrelated texts where memories stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import WirePrompt
from mindscore.measure.divergence import FEWEST
from mindscore.measure.placebo import (
    MOST_PLACES,
    UNRELATED,
    PlaceboControl,
    around,
    scaffolding,
    spread_evenly,
    with_filler,
)

IDS = st.lists(st.integers(0, 9), min_size=1, max_size=12)


@given(
    tokens=st.lists(st.integers(0, 99), min_size=12, max_size=40),
    edges=st.lists(st.integers(0, 11), min_size=4, max_size=4, unique=True),
    filler=st.lists(st.integers(100, 199), min_size=1, max_size=5),
    kept=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_no_position_and_no_other_id_changes(tokens, edges, filler, kept):
    one, two, three, four = sorted(edges)
    spans = [(one, two), (three, four)]
    prompt = WirePrompt(tuple(tokens), (), ((11, 12),), ("r",))
    found = with_filler(prompt, spans, filler, kept)
    inside = {at for start, end in spans for at in range(start, end)}
    assert len(found.tokens) == len(tokens)
    assert (found.ranges, found.node_ids) == (prompt.ranges, prompt.node_ids)
    for at, (old, new) in enumerate(zip(tokens, found.tokens, strict=True)):
        assert new == old or (at in inside and new >= 100)
    for start, end in spans:
        new = [at for at in range(start, end) if found.tokens[at] >= 100]
        # What is too short to have edges is filled whole.
        edge = kept if end - start > sum(kept) else (0, 0)
        assert new == list(range(start + edge[0], end - edge[1]))


def test_the_templates_own_ids_are_those_that_all_memories_begin_and_end_with():
    assert scaffolding([[7, 8, 1, 2, 9], [7, 8, 3, 9], [7, 8, 1, 4, 5, 9]]) == (2, 1)
    assert scaffolding([[7, 1, 9], [7, 1, 9]]) == (2, 0)
    assert scaffolding([[7, 1, 9]]) == (0, 0)


@given(bodies=st.lists(IDS, min_size=2, max_size=5))
def test_something_of_each_memory_is_left_to_fill(bodies):
    begin, end = scaffolding(bodies)
    assert all(begin + end < len(body) for body in bodies)
    assert all(body[:begin] == bodies[0][:begin] for body in bodies)
    assert all(body[len(body) - end :] == bodies[0][len(bodies[0]) - end :] for body in bodies)


@given(number=st.integers(0, 200))
def test_places_are_spread_from_the_first_to_the_last(number):
    keys = [str(at) for at in range(number)]
    found = spread_evenly(keys)
    assert len(found) == len(set(found)) == min(number, MOST_PLACES)
    assert found[:1] == keys[:1]
    assert found[-1:] == keys[-1:]


def test_the_spread_is_three_medians_of_enough_places_and_the_largest_of_few():
    many = {str(at): {"r": (-1) ** at * 0.1 * at} for at in range(1, FEWEST + 1)}
    few = {"a": {"r": 0.2, "s": -0.5}, "b": {"r": -0.3}}
    assert PlaceboControl.of(many).spread == {"r": pytest.approx(3 * 0.3)}
    assert PlaceboControl.of(few) == PlaceboControl(("a", "b"), {"r": 0.3, "s": 0.5})
    assert "2 places tried" in PlaceboControl.of(few).remark


def test_the_texts_are_different_from_each_other():
    words = [frozenset(text.lower().split()) for text in UNRELATED]
    assert len(set(words)) == len(words)


def test_what_the_template_prints_round_a_single_memory_is_found_by_its_text():
    assert around([1, 2, 50, 51, 52, 53, 9], [50, 51, 52, 53]) == (2, 1)
    # Its first and last token may have grown together with what stands beside them.
    assert around([1, 2, 77, 51, 52, 78, 9], [50, 51, 52, 53]) == (2, 1)
    assert around([51, 52], [50, 51, 52, 53]) == (0, 0)
    assert around([1, 2, 3], [50, 51, 52]) is None
    assert around([1, 2, 3], [50, 51]) is None


def test_a_frame_that_was_replaced_is_told_beside_the_number():
    told = PlaceboControl.of({"k": {"n": 0.5}}, is_framed=True).remark
    assert told.endswith("1 place tried, with what the template prints round it)")
    assert "template" not in PlaceboControl.of({"k": {"n": 0.5}}).remark
