import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindscore.integrations.vllm.images import move_ranges
from mindscore.integrations.vllm.protocol import RequestError

IMAGE = 99
PATCH = 98


def expand(sent, lengths):
    """Replace each IMAGE by so many patches; return the prompt and the spans of the images."""
    expanded, spans, lengths = [], [], list(lengths)
    for id_ in sent:
        if id_ == IMAGE:
            length = lengths.pop(0)
            spans.append((len(expanded), len(expanded) + length))
            expanded += [PATCH] * length
        else:
            expanded.append(id_)
    return expanded, spans


def test_a_range_moves_by_what_the_images_before_it_grew():
    sent = [1, IMAGE, 2, 3, IMAGE, 4, 5]
    expanded, spans = expand(sent, [4, 3])
    assert move_ranges([(2, 4), (5, 7)], sent, expanded, spans) == [(5, 7), (10, 12)]


@given(
    st.lists(st.integers(0, 5), max_size=12).map(
        lambda it: [IMAGE if id_ == 5 else id_ for id_ in it]
    ),
    st.data(),
)
def test_a_moved_range_is_of_the_same_tokens(sent, data):
    lengths = [data.draw(st.integers(1, 6)) for _ in range(sent.count(IMAGE))]
    expanded, spans = expand(sent, lengths)
    texts = [at for at, id_ in enumerate(sent) if id_ != IMAGE]
    for (start, end), at in zip(
        move_ranges([(it, it + 1) for it in texts], sent, expanded, spans), texts, strict=True
    ):
        assert expanded[start:end] == [sent[at]]
        assert not any(start < after and here < end for here, after in spans)


def test_an_image_whose_placeholder_is_several_tokens_is_followed():
    sent = [1, 7, 8, 2, 7, 8, 3]
    expanded = [1, PATCH, PATCH, PATCH, PATCH, 2, PATCH, PATCH, 3]
    assert move_ranges([(3, 4), (6, 7)], sent, expanded, [(1, 5), (6, 8)]) == [(5, 6), (8, 9)]


def test_a_placeholder_that_vllm_puts_in_by_itself_takes_no_token_away():
    assert move_ranges([(1, 2)], [1, 2], [PATCH, PATCH, 1, 2], [(0, 2)]) == [(3, 4)]


@pytest.mark.parametrize("range_", [(1, 3), (0, 2), (1, 2)])
def test_a_range_over_an_image_is_refused(range_):
    sent = [1, IMAGE, 2]
    expanded, spans = expand(sent, [4])
    with pytest.raises(RequestError, match="covers the placeholder") as caught:
        move_ranges([range_], sent, expanded, spans)
    assert caught.value.param == "score_ranges[0]"


@pytest.mark.parametrize(
    ("sent", "expanded", "spans"),
    [
        # A token more at the front; another text; images of other placeholders; more images.
        ([1, IMAGE, 2], [0, 1, PATCH, PATCH, 2], [(2, 4)]),
        ([1, IMAGE, 2], [1, PATCH, PATCH, 3], [(1, 3)]),
        ([1, 7, 2, 8, 3], [1, PATCH, 2, PATCH, 3], [(1, 2), (3, 4)]),
        ([1, 7, 2, 7, 7, 3], [1, PATCH, 2, PATCH, 3], [(1, 2), (3, 4)]),
        ([1], [1, 2, 3, PATCH], [(3, 4)]),
        # vLLM says of no image where it is.
        ([1, IMAGE, 2], [1, PATCH, PATCH, 2], []),
    ],
)
def test_a_prompt_that_changed_elsewhere_is_refused(sent, expanded, spans):
    with pytest.raises(RequestError, match="cannot be told") as caught:
        move_ranges([(len(sent) - 1, len(sent))], sent, expanded, spans)
    assert caught.value.param == "multi_modal_data"
