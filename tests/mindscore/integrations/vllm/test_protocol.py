import json
import math

import pytest

from mindscore.integrations.vllm.protocol import RequestError, read_request, write_answer

GOOD = {"model": "m", "prompt": [5, 6, 7, 8], "score_ranges": [[1, 4]], "logprobs": 1}


def read(**change):
    return read_request(json.dumps({**GOOD, **change}).encode())


def test_a_request_is_read_as_it_was_sent():
    request = read(priority=-3, multi_modal_data={"image": ["data:image/png;base64,aa"]})
    assert (request.model, request.prompt) == ("m", [5, 6, 7, 8])
    assert request.score_ranges == [(1, 4)]
    assert request.priority == -3
    assert request.images == ["data:image/png;base64,aa"]


def test_what_other_servers_take_is_ignored_and_only_prompt_and_ranges_are_needed():
    request = read_request(b'{"prompt": [1, 2], "score_ranges": [], "stream": false}')
    assert (request.model, request.priority, request.images) == (None, None, [])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [5, -1]}, "prompt[1]"),
        ({"prompt": [5, 2**31]}, "prompt[1]"),
        ({"prompt": [5, True]}, "prompt[1]"),
        ({"prompt": [5, 6.5]}, "prompt[1]"),
        ({"prompt": "text"}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"score_ranges": [[0, 2]]}, "score_ranges[0]"),
        ({"score_ranges": [[1, 2], [2, 5]]}, "score_ranges[1]"),
        ({"score_ranges": [[3, 3]]}, "score_ranges[0]"),
        ({"score_ranges": [[3, 2]]}, "score_ranges[0]"),
        ({"score_ranges": [[-3, 2]]}, "score_ranges[0]"),
        ({"score_ranges": [[1, 2, 3]]}, "score_ranges[0]"),
        ({"score_ranges": [[1, 4]] * 11}, "score_ranges"),
        ({"logprobs": 5}, "logprobs"),
        ({"priority": "first"}, "priority"),
        ({"priority": 2**63}, "priority"),
        ({"multi_modal_data": {"video": ["data:,"]}}, "multi_modal_data"),
        ({"multi_modal_data": {"image": ["http://host/a.png"]}}, "multi_modal_data.image[0]"),
        ({"multi_modal_data": {"image": ["file:///etc/passwd"]}}, "multi_modal_data.image[0]"),
    ],
)
def test_a_wrong_field_is_named(change, param):
    with pytest.raises(RequestError) as caught:
        read(**change)
    assert caught.value.param == param
    assert str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"prompt": [1]}', b'"\xff"'])
def test_a_body_that_is_no_request_is_refused(body):
    with pytest.raises(RequestError):
        read_request(body)


def test_the_answer_has_totals_values_and_what_came_from_the_cache():
    values = [[-0.1, -0.2, -0.30000001192092896], [-5.0]]
    answer = json.loads(write_answer(values, 40, 16))
    assert answer == {
        "scores": [
            {"total_logprob": math.fsum(values[0]), "token_logprobs": values[0]},
            {"total_logprob": -5.0, "token_logprobs": [-5.0]},
        ],
        "usage": {
            "prompt_tokens": 40,
            "completion_tokens": 0,
            "total_tokens": 40,
            "prompt_tokens_details": {"cached_tokens": 16},
        },
    }
