"""Two texts, word by word."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindscore.pages.environment import Piece, word_diff

TEXTS = st.text(alphabet="ab .,\n\u00e9\u4e2d\U0001f600", max_size=60)


WORDS = ("tea ", "dog, ", "\u00e9clair\n", "\u4e2d ", ". ", "\U0001f600 ")


@st.composite
def near(draw):
    """Two texts that begin alike, and go on no longer than that with words of their own."""
    shared = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12))
    # "dog, " is two words, the others one.
    own = st.lists(st.sampled_from([it for it in WORDS if "," not in it]), max_size=len(shared))
    return "".join([*shared, *draw(own)]), "".join([*shared, *draw(own)])


@given(near())
def test_the_pieces_make_up_both_texts(texts):
    before, after = texts
    pieces = word_diff(before, after)
    assert "".join(it.text for it in pieces if it.kind != "added") == before
    assert "".join(it.text for it in pieces if it.kind != "removed") == after
    assert all(it.text for it in pieces)


@given(before=TEXTS, after=TEXTS)
def test_texts_are_compared_whole_or_not_at_all(before, after):
    pieces = word_diff(before, after)
    assert "".join(it.text for it in pieces if it.kind != "added") in (before, "")
    assert "".join(it.text for it in pieces if it.kind != "removed") in (after, "")


@given(text=TEXTS)
def test_of_equal_texts_all_is_the_same(text):
    assert word_diff(text, text) == ([Piece("same", text)] if text else [])


def test_what_differs_is_told_in_whole_words():
    assert word_diff("Take 28-inch tubes, please.", "Take 26-inch tubes.") == [
        Piece("same", "Take "),
        Piece("removed", "28"),
        Piece("added", "26"),
        Piece("same", "-inch tubes"),
        Piece("removed", ", please"),
        Piece("same", "."),
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [("a b", ""), ("", "a b"), ("Green tea at six.", "It rains in Oslo.")],
)
def test_texts_with_little_in_common_are_not_compared(before, after):
    assert word_diff(before, after) == []


def test_long_texts_are_compared_in_time():
    one = " ".join(f"word{it % 700} and" for it in range(2_000))
    other = " ".join(f"word{it % 900} or" for it in range(2_000))
    began = time.monotonic()
    word_diff(one, other)
    assert time.monotonic() - began < 60
