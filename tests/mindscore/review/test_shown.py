"""What pages show, worked out from what is kept."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import FinetuneCandidate
from mindscore.measure.divergence import noise_limit
from mindscore.measure.placebo import PlaceboControl
from mindscore.pages.environment import moment, number
from mindscore.review.cells import MOST_RESPONSES, conversations, effects, matrix
from mindscore.review.queue import NEIGHBOURS, CandidateQueue, id_of
from mindscore.review.reading import (
    HEIGHT,
    MOST,
    WIDTH,
    MemoryRow,
    sparkline,
)
from mindscore.review.web import address
from mindscore.store import Cell, Listed, Notes, Point, Review, Reviewed, StoredMemory


def _item(number_, decision=None, sinks=()):
    candidate = FinetuneCandidate(
        entry_idx=number_, node_id=f"n{number_}", divergence=200.0 - number_, response_text="r",
        prior_context="", context_ids=(1,), bare_context_ids=(1,), continuation_ids=(number_, 9),
        alternate_text=None, alternate_ids=None, timestamp_ns=number_,
    )  # fmt: skip
    review = decision and Review(decision, "response", 1.0)
    name = Reviewed(candidate, "toy", 0.0, review, sinks).name
    return Listed(name, candidate.divergence, str(number_), "", review, sinks)


def _id(item):
    return id_of(item.name)


def test_a_queue_sorts_candidates_by_what_became_of_them():
    items = [_item(0), _item(1, "accepted"), _item(2, "rejected"), _item(3, "accepted", ("http",)),
             _item(4, None, ("",)), _item(5)]  # fmt: skip
    queue = CandidateQueue(items, "waiting", "")
    assert queue.counts == {"waiting": 2, "accepted": 1, "rejected": 1, "trained": 2}
    assert [it.item.response_text for it in queue.shown] == ["0", "5"]
    assert queue.current.id == _id(items[0])
    assert queue.neighbour(1).id == _id(items[5])
    assert queue.neighbour(-1) is None
    assert queue.neighbour(2) is None
    assert queue.find("nothing") is None


def _again(item, stamp, decision=None, sinks=(), prior=""):
    """The same response, found again under another timestamp."""
    review = decision and Review(decision, "response", 1.0)
    name = replace(item.name, timestamp_ns=stamp)
    return replace(item, name=name, review=review, sinks=sinks, prior_context=prior)


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ([], "waiting"),
        ([("rejected", ())], "rejected"),
        ([("accepted", ()), (None, ("http",)), ("rejected", ())], "trained"),
    ],
)
def test_a_response_that_is_found_again_is_one_candidate(more, state):
    first = _item(1)
    items = [first, _again(first, 7), *(_again(first, 8 + at, *it) for at, it in enumerate(more))]
    queue = CandidateQueue(items, state, "")
    assert [it.state for it in queue.entries] == [state]
    assert queue.counts.total() == 1
    # A form of a page that showed another of them is still understood.
    assert {queue.find(_id(it)).item for it in items} == set(items)


def test_equal_responses_to_different_questions_are_different_candidates():
    first = _item(1)
    items = [first, _again(first, 7, prior="user: And tonight?"), _item(2)]
    assert [it.item for it in CandidateQueue(items, "waiting", "").shown] == items


@pytest.mark.parametrize(
    ("decided", "at", "following"),
    [((), 1, 2), ((2,), 1, 3), ((2, 3), 1, 0), ((), 3, 0), ((0, 1, 2), 3, None)],
)
def test_after_a_decision_comes_the_next_that_waits(decided, at, following):
    items = [_item(it, "accepted" if it in decided else None) for it in range(4)]
    found = CandidateQueue(items, "waiting", _id(items[at])).next_waiting()
    assert (found and int(found.item.response_text)) == following


@pytest.mark.parametrize(
    ("at", "listed"),
    [(0, (0, 2 * NEIGHBOURS + 1)), (100, (75, 126)), (199, (174, 200))],
)
def test_of_many_those_around_the_current_are_listed(at, listed):
    items = [_item(it) for it in range(200)]
    queue = CandidateQueue(items, "waiting", _id(items[at]))
    assert queue.position == at
    assert queue.listed == range(*listed)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=2, max_size=200))
def test_a_sparkline_stays_in_its_picture(values):
    line = sparkline([Point(float(at), *it) for at, it in enumerate(values)])
    points = [tuple(map(float, it.split(","))) for it in line.weights.split()]
    assert len(points) == len(line.scores) == min(len(values), MOST)
    assert line.last == line.scores[-1][:1] + line.last[1:]
    for x, y in (*points, *line.scores):
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
    assert sorted(points) == sorted(points, key=lambda it: it[0])


def test_a_sparkline_is_told_in_words():
    points = [Point(1.0, 4.0, 4.0), Point(2.0, 1.0, 3.1)]
    assert sparkline(points).words == (
        "2 times scored: weight 4.00 at first, 3.10 now; the last score 1.00 nats"
    )
    assert sparkline(points[:1]) is None
    assert sparkline([]) is None


def _cell(key, node, index, signed, noise=None, scored_at=0.0, conversation=""):
    return Cell(key, node, index, max(0.0, signed), signed, noise, scored_at, conversation)


def test_the_matrix_has_a_row_for_each_memory_and_a_hole_for_what_is_not_measured():
    cells = [_cell("a", "n1", 1, 0.5), _cell("b", "n1", 1, -3.0), _cell("b", "n3", 3, 0.0)]
    found = matrix(cells, None)
    assert [it["key"] for it in found.data["memories"]] == ["b", "a"]
    assert [it["entry_idx"] for it in found.data["responses"]] == [1, 3]
    assert found.data["signed"] == [[-3.0, 0.0], [0.5, None]]
    assert found.data["noise"] is None
    assert found.size == (2, 2)
    assert "mindscore review TRANSCRIPT" in found.data["responses"][0]["text"]


def test_the_matrix_has_the_noise_where_any_was_measured():
    cells = [_cell("a", "n1", 1, 0.5, 0.25), _cell("b", "n1", 1, -3.0)]
    assert matrix(cells, None).data["noise"] == [[None], [0.25]]


def test_estimates_are_marked_and_come_after_what_was_measured():
    guess = {"mode": "estimate", "noise": 0.3}
    cells = [_cell("a", "n1", 1, 0.5), replace(_cell("b", "n1", 1, -3.0), **guess),
             _cell("c", "n1", 1, 0.1), replace(_cell("c", "n3", 3, 2.0), **guess)]  # fmt: skip
    found = matrix(cells, None).data
    assert [it["key"] for it in found["memories"]] == ["a", "c", "b"]
    assert found["estimated"] == [[False, False], [False, True], [True, False]]
    assert matrix(cells[:1], None).data["estimated"] is None


def test_what_is_within_the_spread_of_the_places_is_not_ranked():
    control = PlaceboControl(("a",), {"n1": 3.0})
    cells = [_cell("a", "n1", 1, 2.5, 0.1), _cell("b", "n3", 3, 1.5, 0.1)]
    found = matrix(cells, None, Notes(placebo=control))
    assert [it["key"] for it in found.data["memories"]] == ["b", "a"]
    assert found.data["place"] == found.data["spread"] == [3.0, 0.0]
    assert [it["key"] for it in matrix(cells, None).data["memories"]] == ["a", "b"]
    [muted] = effects(cells, cells, {"": Notes(placebo=control)})["a"]
    assert (muted.kind, muted.limit) == ("muted", 3.0)
    assert effects(cells, cells, {"other": Notes(placebo=control)})["a"][0].kind == "more"


def test_estimates_do_not_tell_what_most_memories_do():
    cells = [_cell(key, "n1", 1, 2.0) for key in "abcde"]
    assert matrix(cells, None).data["spread"] == [6.0]
    guesses = [replace(_cell(key, "n1", 1, 0.1), mode="estimate") for key in "fghijklm"]
    assert matrix([*cells, *guesses], None).data["spread"] == [6.0]


def test_estimates_are_no_part_of_the_verdict():
    memory = StoredMemory("k", "m", 0.5, 0.5, 1.0, 1)
    cells = [_cell("k", "n1", 1, 4.0, 0.1), replace(_cell("k", "n3", 3, 9.0), mode="estimate")]
    row = MemoryRow(memory, None, None, effects(cells, cells, {})["k"], 1.0)
    assert (row.verdict.words, row.verdict.note) == ("helped 1", "of 1 response")
    assert [it.is_estimate for it in row.effects] == [True, False]


def test_a_response_that_has_moved_is_one_column(transcript):
    cells = [_cell("tea", "n", 1, 0.5, scored_at=1.0), _cell("dog", "n", 3, 0.7, scored_at=2.0)]
    found = matrix(cells, None).data
    assert [it["entry_idx"] for it in found["responses"]] == [3]
    assert found["signed"] == [[0.7], [0.5]]
    talk = transcript()
    index, node = talk.responses()[1]
    elsewhere = [replace(cell, node_id=node, entry_idx=99) for cell in cells]
    found = matrix(elsewhere, talk).data
    assert [it["entry_idx"] for it in found["responses"]] == [index]


def test_of_too_many_responses_those_scored_last_are_shown():
    more = MOST_RESPONSES + 20
    cells = [_cell(key, f"n{at}", at, 1.0, scored_at=-at) for at in range(more) for key in "ab"]
    found = matrix(cells, None)
    assert found.size == (2, MOST_RESPONSES)
    assert found.older == 20
    assert [it["entry_idx"] for it in found.data["responses"]] == [*range(MOST_RESPONSES)]
    assert matrix(cells[:10], None).older == 0


def test_with_a_transcript_the_matrix_is_that_conversations(transcript):
    talk = transcript()
    index, node = talk.responses()[0]
    cells = [_cell("tea", node, index, 2.0), _cell("gone", node, index, 1.0),
             _cell("tea", "elsewhere", 1, 9.0)]  # fmt: skip
    found = matrix(cells, talk)
    assert found.elsewhere == 1
    assert found.data["responses"] == [
        {"entry_idx": 1, "node_id": node, "text": talk.conversation[1].text}
    ]
    texts = {it["key"]: it["text"] for it in found.data["memories"]}
    assert texts["tea"].startswith("Nora drinks rooibos")
    assert texts["gone"] == "It stands nowhere in this conversation."


def test_cells_of_rows_that_share_a_response_are_of_one_conversation():
    cells = [_cell("a", "n1", 1, 0.5, scored_at=1.0), _cell("a", "n3", 3, 0.5, scored_at=1.0),
             _cell("b", "n3", 3, 0.5, scored_at=2.0), _cell("a", "m1", 1, 0.5, scored_at=9.0),
             _cell("b", "m1", 1, 0.5, scored_at=8.0)]  # fmt: skip
    found = conversations(cells)
    assert [it.id for it in found] == ["m1", "n1"]
    assert [{cell.node_id for cell in it.cells} for it in found] == [{"m1"}, {"n1", "n3"}]
    assert [it.name.split(",")[0] for it in found] == ["1 response", "2 responses"]


def test_cells_whose_conversation_is_known_are_by_conversation():
    cells = [_cell("a", "n1", 1, 0.5, scored_at=1.0, conversation="one"),
             _cell("a", "n1", 1, 0.7, scored_at=1.0, conversation="begins-two"),
             _cell("b", "n3", 3, 0.5, scored_at=2.0, conversation="one")]  # fmt: skip
    found = conversations(cells)
    assert [it.id for it in found] == ["one", "begins-two"]
    assert [len(it.cells) for it in found] == [2, 1]
    assert found[0].name.startswith("one: 2 responses")
    assert found[1].name.startswith("1 response")


def test_what_nearly_any_memory_does_is_the_spread_of_a_response():
    cells = [_cell(str(at), "n", 1, -1.0 + at / 100) for at in range(9)]
    [spread] = matrix([*cells, _cell("real", "n", 1, 39.6)], None).data["spread"]
    assert 1.4 < spread < 39.6
    assert matrix(cells[:4], None).data["spread"] == [0.0]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("mn"), st.floats(-50, 50),
                  st.none() | st.floats(0, 5)),
        max_size=16, unique_by=lambda it: it[:2],
    )
)  # fmt: skip
def test_the_matrix_and_the_verdicts_have_one_threshold(values):
    cells = [_cell(key, node, 1, signed, noise) for key, node, signed, noise in values]
    data = matrix(cells, None).data
    columns = {it["node_id"]: at for at, it in enumerate(data["responses"])}
    rows = {it["key"]: at for at, it in enumerate(data["memories"])}
    found = effects(cells, cells, {})
    assert sum(map(len, found.values())) == len(cells)
    for key, seen in found.items():
        for effect in seen:
            row, column = rows[key], columns[effect.cell.node_id]
            noise = data["noise"][row][column] if data["noise"] else None
            assert effect.limit == noise_limit(noise, data["spread"][column])


def test_addresses_hold_any_text():
    assert address("/a", model="x & y/ü", at=None) == "/a?model=x+%26+y%2F%C3%BC"
    assert address("/a", model="\ud800") == "/a?model=%3F"
    assert address("/a", at=None) == "/a"


def test_numbers_and_times_are_as_people_read_them():
    assert number(12345) == "12,345"
    assert number(1234.5678, 2) == "1,234.57"
    assert number(None) == number(math.nan) == number(math.inf) == "–"
    assert moment(None) == "never"
    assert moment(0.0).startswith('<time datetime="19')
