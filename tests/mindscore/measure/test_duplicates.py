"""Memories of an archive that say the same."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.mindscore.measure.planted import columns

from mindhooks import MemoryScore, ResponseDivergence
from mindscore.measure.duplicates import (
    Basis,
    alike,
    find_duplicates,
    lowest_share,
    overlaps,
)
from mindscore.measure.evidence import MemoryVersion, judged_cells
from mindscore.measure.interactions import redundant_candidates

VERSIONS = [MemoryVersion(key, text=text) for key, text in zip("abcdefg", ["a"] * 7, strict=True)]
WHOLE = st.integers(-6, 30).filter(bool).map(float)


@given(st.lists(st.lists(st.tuples(WHOLE, WHOLE), min_size=2, max_size=7), min_size=1, max_size=3))
def test_pairs_of_one_response_are_those_of_the_matrix(rows):
    """Each response is there twice, as a pair is of two at least."""
    for row in rows:
        made = [
            (at, 0, response, drop, hold)
            for response in (0, 1)
            for at, (drop, hold) in enumerate(row)
        ]
        scores = [
            MemoryScore(key, 0.0, "full", (cell("r", drop),), (cell("r", hold),))
            for key, (drop, hold) in zip("abcdefg", row, strict=False)
        ]
        found = {
            (one, other) for one, other, _, _ in overlaps(judged_cells(columns(VERSIONS, made)))
        }
        hidden = {
            frozenset("abcdefg".index(key) for key in it.keys)
            for it in redundant_candidates(scores)
        }
        both = {(one, other) for one, other in found if (other, one) in found}
        assert both == {(one, other) for keys in hidden for one in keys for other in keys - {one}}


def cell(node_id, signed):
    return ResponseDivergence(0, node_id, max(0.0, signed), signed, None)


def pair_of(supported, shared, beside):
    """Evidence of a and b: a supports some responses, b some of these, and is beside a in some."""
    rows = []
    for response in range(supported):
        rows += [(at, response, response, 0.1, 0.2) for at in range(2, 7)]
        rows.append((0, response, response, 0.2, 12.0))
        if response < shared:
            rows.append((1, response, response, -0.2, 11.0))
        elif response < beside:
            rows.append((1, response, response, -0.2, 0.1))
    return judged_cells(columns(VERSIONS, rows))


def test_responses_without_the_other_memory_do_not_count_against_a_pair():
    assert (0, 1, 6, 8) in overlaps(pair_of(supported=20, shared=6, beside=8))


def test_a_memory_that_is_missed_is_no_copy():
    rows = [
        (at, response, response, drop, hold)
        for response in range(6)
        for at, (drop, hold) in enumerate([(9.0, 12.0), (0.1, 12.0), *[(0.1, 0.2)] * 5])
    ]
    # The second is hidden by the first; the first is not hidden.
    assert overlaps(judged_cells(columns(VERSIONS, rows))) == [(1, 0, 6, 6)]


def test_a_share_is_surer_the_more_responses_there_are():
    assert lowest_share(0, 0, 0.95) == 0.0
    assert lowest_share(3, 3, 0.95) < 0.5 < lowest_share(4, 4, 0.95) < lowest_share(40, 40, 0.95)
    assert lowest_share(4, 4, 0.99) < 0.5


def test_texts_are_alike_by_their_rare_words():
    race = "Nora is training for the half marathon in Bergen."
    spring = "Nora's race this spring is the half marathon in Bergen."
    cello = "Nora played the cello as a child."
    texts = [race, cello, spring, None, race, ""]
    found = {(one, other): round(similarity, 2) for one, other, similarity in alike(texts)}
    assert found.pop((0, 4)) == 1.0
    assert found.keys() == {(0, 2), (2, 4)}


def test_words_are_compared_only_where_no_hold_is_known():
    versions = [MemoryVersion("a", text="the same"), MemoryVersion("b", text="the same")]
    unknown = judged_cells(columns(versions, [(0, 0, 0, 1.0), (1, 0, 0, 1.0)]))
    found = find_duplicates(versions, unknown, [0, 1], [])
    assert [(key, it.key, it.basis) for key, its in found.items() for it in its] == [
        ("a", "b", Basis.TEXT),
        ("b", "a", Basis.TEXT),
    ]
    known = judged_cells(columns(versions, [(0, 0, 0, 1.0, 1.0), (1, 0, 0, 1.0, 0.0)]))
    assert find_duplicates(versions, known, [0, 1], []) == {}


def test_what_was_removed_together_and_missed_is_confirmed():
    cells = pair_of(supported=6, shared=6, beside=6)
    found = find_duplicates(VERSIONS, cells, range(7), [("b", "a"), ("c", "gone")])
    assert [(it.key, it.basis, it.shared) for it in found["a"]] == [("b", Basis.CONFIRMED, 6)]
    assert "c" not in found
    unheld = judged_cells(columns(VERSIONS, [(0, 0, 0, 1.0)]))
    assert find_duplicates(VERSIONS, unheld, [0, 1], [("a", "b")])["b"][0].basis is Basis.CONFIRMED


def test_without_hold_nothing_is_said_to_overlap():
    rows = [(at, 0, 0, 1.0) for at in range(7)]
    assert overlaps(judged_cells(columns(VERSIONS, rows))) == []
    assert np.isnan(judged_cells(columns(VERSIONS, rows)).hold).all()
